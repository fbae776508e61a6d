import Exporter
import Testing

@testable import Master

@Suite struct TracingPlanTests {
    private func plan(_ arguments: [String], _ environment: [String: String] = [:]) throws -> Configuration {
        try configuration(["-b", "127.0.0.1:1"] + arguments, Surroundings(environment: environment))
    }

    private func resource(_ arguments: [String], _ environment: [String: String]) throws -> [String: String] {
        let made = try plan(["--otel-exporter", "console"] + arguments, environment)
        let attributes = try #require(made.exporter).resource.attributes
        #expect(Set(attributes.map(\.key)).count == attributes.count, "a key stands twice")
        return Dictionary(uniqueKeysWithValues: attributes.map { ($0.key, "\($0.value)") })
    }

    @Test func theEndpointTurnsTracingOn() throws {
        let made = try plan(["--otel-endpoint", "http://c:4318", "--otel-protocol", "http/json"])
        #expect(made.worker.isTracing)
        guard case .collector(let url, .json, let headers) = made.exporter?.destination else {
            Issue.record("no JSON to a collector"); return
        }
        #expect(url == "http://c:4318/v1/traces")
        #expect(headers.isEmpty)
    }

    @Test func theConsoleNeedsNoEndpoint() throws {
        guard case .console(isColoured: false) = try plan(["--otel-exporter", "console"]).exporter?.destination else {
            Issue.record("no console"); return
        }
    }

    @Test func noneWinsOverAnEndpoint() throws {
        #expect(try plan(["--otel-exporter", "none", "--otel-endpoint", "http://c"]).exporter == nil)
    }

    @Test func otlpNeedsAnEndpoint() {
        let error = #expect(throws: StartFailure.self) { try plan(["--otel-exporter", "otlp"]) }
        #expect(error?.kind == .usage)
    }

    @Test(
        arguments: [
            ([], [:], "load_balancer"),
            ([], ["OTEL_RESOURCE_ATTRIBUTES": "service.name=list"], "list"),
            ([], ["OTEL_RESOURCE_ATTRIBUTES": "service.name=list", "OTEL_SERVICE_NAME": "variable"], "variable"),
            (["--service-name", "flag"], ["OTEL_SERVICE_NAME": "variable"], "flag"),
            ([], ["OTEL_SERVICE_NAME": ""], "load_balancer"),
        ] as [([String], [String: String], String)])
    func theServicesNameComesFromTheNearest(
        arguments: [String], environment: [String: String], name: String
    ) throws {
        #expect(try resource(arguments, environment)["service.name"] == "string(\"\(name)\")")
    }

    @Test func attributesOfTheEnvironmentJoinThoseOfTheProcess() throws {
        let made = try resource([], ["OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=a%2Cb,host.name=mine"])
        #expect(made["deployment.environment.name"] == "string(\"a,b\")")
        #expect(made["host.name"] == "string(\"mine\")")
        #expect(made["process.pid"] == "int(0)")
        #expect(made["service.version"] != nil && made["service.instance.id"] != nil)
    }

    @Test func unreadableVariablesAreWarningsAndNoMore() throws {
        let made = try plan(
            ["--otel-endpoint", "http://c"],
            ["OTEL_RESOURCE_ATTRIBUTES": "broken", "OTEL_EXPORTER_OTLP_HEADERS": "authorization"])
        #expect(made.warnings.count == 2)
        #expect(made.exporter != nil)
    }

    @Test func headersComeFromTheEnvironment() throws {
        let made = try plan(
            ["--otel-endpoint", "http://c"], ["OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x, x-team=a"])
        guard case .collector(_, .protobuf, let headers) = made.exporter?.destination else {
            Issue.record("no collector"); return
        }
        #expect(headers.map { "\($0.name): \($0.value)" } == ["authorization: Bearer x", "x-team: a"])
    }

    @Test(arguments: ["a=1%0D%0AX: y", "a b=1", "a%00=1", "ä=1"])
    func headersThatWouldSplitThePostAreIgnored(text: String) throws {
        let made = try plan(["--otel-endpoint", "http://c"], ["OTEL_EXPORTER_OTLP_HEADERS": text])
        guard case .collector(_, _, let headers) = made.exporter?.destination else { Issue.record("none"); return }
        #expect(headers.isEmpty)
        #expect(made.warnings.count == 1)
    }

    @Test func warningsKeepSecretsOutOfTheLog() throws {
        let made = try plan(["--otel-endpoint", "http://c"], ["OTEL_EXPORTER_OTLP_HEADERS": "topsecret"])
        #expect(made.warnings.count == 1)
        #expect(!made.warnings.joined().contains("topsecret"))
    }

    @Test(
        arguments: [
            (nil, "classic"), ("http", "stable"), ("http/dup", "both"), ("database, http", "stable"),
            ("http,http/dup", "both"), ("https", "classic"),
        ] as [(String?, String)])
    func stableNamesAreOptedInto(value: String?, naming: String) throws {
        let made = try plan(["--otel-exporter", "console"], value.map { ["OTEL_SEMCONV_STABILITY_OPT_IN": $0] } ?? [:])
        #expect("\(try #require(made.exporter).naming)" == naming)
    }

    @Test func instanceIDsAreRandomUUIDs() {
        let zero = Surroundings(instanceBytes: Array(repeating: 0, count: 16)).instanceID
        let ones = Surroundings(instanceBytes: Array(repeating: 0xFF, count: 16)).instanceID
        #expect(zero == "00000000-0000-4000-8000-000000000000")
        #expect(ones == "ffffffff-ffff-4fff-bfff-ffffffffffff")
    }

    @Test(
        arguments: [
            (true, [:], true), (false, [:], false), (true, ["NO_COLOR": "1"], false), (true, ["NO_COLOR": ""], true),
            (true, ["TERM": "dumb"], false), (true, ["TERM": "xterm"], true),
        ] as [(Bool, [String: String], Bool)])
    func coloursAreForTerminalsThatWantThem(isTerminal: Bool, environment: [String: String], isColoured: Bool) {
        let surroundings = Surroundings(environment: environment, isOutputTerminal: isTerminal)
        #expect(surroundings.wantsColour == isColoured)
    }

    @Test func aCollectorsFilesComeFromTheEnvironment() throws {
        let folder = TemporaryFolder()
        folder.write("text", to: "ca.pem")
        let path = folder.file("ca.pem")
        let made = try plan(
            ["--otel-endpoint", "https://c"],
            ["OTEL_EXPORTER_OTLP_CERTIFICATE": path, "OTEL_EXPORTER_OTLP_CLIENT_KEY": path])
        #expect(made.exporter?.collectorTLS == ExporterConfiguration.CollectorTLS(authorities: path, key: path))
        #expect(made.warnings.contains { $0.contains("belong together") })
    }

    @Test func aCollectorsFilesAreWatched() throws {
        let folder = TemporaryFolder()
        folder.write("text", to: "ca.pem")
        let environment = [
            "OTEL_EXPORTER_OTLP_CERTIFICATE": folder.file("ca.pem"),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": folder.file("later.pem"),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/nowhere/key.pem",
        ]
        func watched(_ arguments: [String]) throws -> [String] {
            let surroundings = Surroundings(environment: environment)
            let made = try configuration(["-b", "127.0.0.1:1", "--watch-config"] + arguments, surroundings)
            return made.service.watched.map(\.path)
        }
        #expect(
            try watched(["--otel-endpoint", "https://c"]) == [folder.file("ca.pem"), folder.file("later.pem")],
            "a folder that is not there would cost the start")
        #expect(throws: StartFailure.self) { try watched([]) }
    }

    @Test func aFileThatCannotBeReadIsKeptWithAWarning() throws {
        let made = try plan(["--otel-endpoint", "https://c"], ["OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"])
        #expect(made.exporter?.collectorTLS.authorities == "/nowhere")
        #expect(made.warnings.contains { $0.hasPrefix("OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere cannot be read") })
    }
}
