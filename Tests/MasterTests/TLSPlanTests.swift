import Glibc
import Testing

@testable import Master

/// Unsafe: calls C's mkdtemp and system.
@Suite struct TLSPlanTests {
    /// A certificate and its key, made once.
    private static let files: (certificate: String, key: String) = {
        var template = Array("/tmp/lb-plan-XXXXXX".utf8CString)
        guard let folder = unsafe mkdtemp(&template) else { fatalError("mkdtemp fails") }
        let base = unsafe String(cString: folder)
        let command =
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout \(base)/key -out "
            + "\(base)/certificate -days 2 -subj /CN=plan.test >/dev/null 2>&1"
        guard unsafe system(command) == 0 else { fatalError("\(command) fails") }
        return ("\(base)/certificate", "\(base)/key")
    }()

    private static var pair: [String] { ["--tls-cert", files.certificate, "--tls-key", files.key] }

    private func configuration(_ arguments: [String]) throws -> Configuration {
        try Configuration(
            try CommandLineOptions.parsed(["--backend", "127.0.0.1:1"] + arguments), .current(),
            resolve: { (_, _) throws(StartFailure) in [] })
    }

    private func failure(_ arguments: [String]) -> String {
        let error = #expect(throws: StartFailure.self) { try configuration(arguments) }
        #expect(error?.kind == .usage)
        return error?.message ?? ""
    }

    @Test func withoutAPortThereIsNoTLS() throws {
        let made = try configuration([])
        #expect(made.tlsListen == nil)
        #expect(made.listenAddresses.map(\.port) == [8080])
        #expect(made.worker.tlsServer == nil)
        #expect(made.worker.tlsClient == nil)
    }

    @Test func httpsStandsBesidePlainHTTPIfBothAreAskedFor() throws {
        let made = try configuration(["--port", "81", "--tls-port", "82"] + Self.pair)
        #expect(made.listenAddresses.map(\.port) == [81, 82])
        #expect(made.worker.tlsServer?.certificateNames == [["plan.test"]])
    }

    @Test func bothPortsMayBeWhicheverAreFree() throws {
        let made = try configuration(["--address", "127.0.0.1", "--port", "0", "--tls-port", "0"] + Self.pair)
        let first = try Heritage(made, generation: 1)
        #expect(Set(first.listeners.map(\.address.port)).count == 2)
        #expect(first.worker.tlsPort == first.listeners[1].address.port)
        let second = try Heritage(made, generation: 2, sharing: first.listeners)
        #expect(second.listeners.map(\.address) == first.listeners.map(\.address))
        #expect(second.worker.tlsPort == first.worker.tlsPort)
        #expect(PlanText.describe(made).contains("127.0.0.1:0, 127.0.0.1:0 (TLS)\n"))
        let alone = try configuration(["--tls-port", "82"] + Self.pair)
        #expect(PlanText.describe(alone).contains(" *:82 (TLS)\n"))
    }

    @Test func aTLSPortAloneIsTheOnlyOne() throws {
        let made = try configuration(["--tls-port", "82"] + Self.pair)
        #expect(made.listenAddresses.map(\.port) == [82])
        #expect(made.tlsListen == made.listen)
    }

    @Test func whatDoesNotFitTogetherIsSaid() {
        #expect(failure(["--tls-port", "82"]).contains("needs a certificate"))
        #expect(failure(Self.pair).contains("add --tls-port"))
        #expect(failure(["--tls-port", "82", "--tls-cert", "x"] + Self.pair).contains("2 --tls-cert and 1 --tls-key"))
        #expect(failure(["--tls-port", "82", "--port", "82"] + Self.pair).contains("both 82"))
        #expect(failure(["--upstream-cert", "x"]).contains("--upstream-key"))
        #expect(failure(["--upstream-key", "x"]).contains("--upstream-cert"))
    }

    @Test func whatIsWrongWithAFileIsSaid() {
        let missing = ["--tls-port", "82", "--tls-cert", "/nowhere/c", "--tls-key", Self.files.key]
        #expect(failure(missing).contains("/nowhere/c: No such file or directory"))
        #expect(failure(["--upstream-ca", "/nowhere/ca"]).contains("/nowhere/ca"))
    }

    @Test func backendsWithTLSHaveSettings() throws {
        let made = try configuration(["--backend", "https://127.0.0.1:2", "--insecure"])
        #expect(made.worker.backends.map(\.isSecure) == [false, true])
        #expect(made.worker.tlsClient != nil)
        #expect(made.warnings.contains { $0.contains("--insecure") })
    }

    @Test func aFileSaysTheSame() throws {
        let text = """
            {"backends": ["https://127.0.0.1:2"], "tls": {"port": 82, "certificates": ["\(Self.files.certificate)"],
             "keys": "\(Self.files.key)", "min_version": "1.3"}, "upstream_tls": {"insecure": true}}
            """
        let file = try ConfigurationFile(path: "f", text: text)
        let options = try CommandLineOptions.parsed(file.arguments)
        #expect(options.tls.tlsPort == 82)
        #expect(options.tls.tlsCert == [Self.files.certificate])
        #expect(options.tls.tlsKey == [Self.files.key])
        #expect(options.tls.tlsMinVersion == .tls13)
        #expect(options.upstreamTLS.insecure)
        #expect(file.backends.map(\.isSecure) == [true])
    }
}
