import Testing

@testable import Master

@Suite struct CommandLineTests {
    private func end(_ arguments: String...) -> CommandLineEnd? {
        #expect(throws: CommandLineEnd.self) { try CommandLineOptions.parsed(arguments) }
    }

    @Test(arguments: [
        ("--nonsense", "--nonsense"), ("stray", "stray"), ("--port", "--port"), ("--port=70000", "70000"),
        ("--port=-1", "-1"), ("--workers=0", "0"), ("--log-level=loud", "loud"), ("--log-format=xml", "xml"),
        ("--otel-protocol=grpc", "grpc"), ("--otel-exporter=zipkin", "zipkin"), ("--address=somewhere", "somewhere"),
        ("--span-buffer=1", "1"), ("--otel-batch-size=0", "0"), ("--max-request-head=12q", "12q"),
        ("--backend=ftp://x:1", "ftp://x:1"), ("--service-name=", "--service-name"),
    ])
    func errorsAreOneLineThatNamesTheValue(argument: String, named: String) {
        guard case .failure(let failure) = end(argument) else { Issue.record("\(argument) is no failure"); return }
        #expect(failure.kind == .usage)
        #expect(!failure.message.contains("\n"))
        #expect(failure.message.contains(named))
    }

    @Test func helpNamesEveryFlagWithItsDefault() {
        guard case .text(let help) = end("--help") else { Issue.record("no help"); return }
        for part in [
            "-p, --port", "-b, --backend", "-w, --workers", "--otel-endpoint", "8080", "--check",
        ] {
            #expect(help.contains(part), "\(part)")
        }
    }

    @Test func versionIsPrinted() {
        #expect(end("--version") == .text("load_balancer \(productVersion)"))
    }
}
