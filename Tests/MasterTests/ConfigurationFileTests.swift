import Glibc
import Testing
import Worker

@testable import Master

/// What a start with this file and these arguments would work with.
func load(
    _ text: String, _ arguments: [String] = [], _ surroundings: Surroundings = Surroundings()
) throws -> Configuration {
    try Configuration.load(
        arguments: ["--config", "/etc/lb.json"] + arguments, fileText: text, surroundings: surroundings
    ) { (host, port) throws(StartFailure) in throw .runTime("cannot resolve \(host)") }
}

@Suite struct ConfigurationFileTests {
    private let backends = #""backends": ["127.0.0.1:9001"]"#

    private func failure(_ text: String, _ arguments: String...) -> String {
        let end = #expect(throws: CommandLineEnd.self) { try load(text, arguments) }
        guard case .failure(let failure) = end else { return "" }
        #expect(failure.kind == .usage)
        #expect(!failure.message.contains("\n"))
        return failure.message
    }

    private func printed(_ text: String, _ arguments: String...) -> String {
        let end = #expect(throws: CommandLineEnd.self) { try load(text, arguments + ["--print-config"]) }
        guard case .text(let json) = end else { Issue.record("\(String(describing: end))"); return "" }
        return json
    }

    @Test func aFileSaysWhatFlagsSay() throws {
        let made = try load(
            """
            {
                // Where to listen
                "listeners": [{ "address": "127.0.0.1", "port": 8081 }],
                "backends": ["127.0.0.1:9001", { "address": "unix:/x", "connections_max": 7 }, "[::1]:9002",],
                "workers": 2, "pin_workers": true,
                "lifecycle": { "drain_timeout": 1.5, "ready_timeout": "2", "draining_max": 3, "worker_stall_timeout": 0 },
                "tracing": { "endpoint": "http://c:4318", "protocol": "http/json", "batch_size": 5, "span_buffer": "1m" },
                "logging": { "level": "debug", "format": "json", "access_log": "-" },
                "limits": { "request_head": 2048, "body": "1m", "attempts": 4, "connections": "77" },
                "timeouts": { "connect": 0.25, "keep_alive": "9" },
                "upstream": { "connections_max": 11, "queue_timeout": 0.5 },
            }
            """, [], Surroundings(availableCPUs: [0, 1]))
        #expect(made.listen.description == "127.0.0.1:8081")
        #expect(made.worker.backends.map(\.name) == ["127.0.0.1:9001", "unix:/x", "[::1]:9002"])
        #expect(made.worker.backends.map(\.connectionsMax) == [nil, 7, nil])
        #expect(made.workerCount == 2 && made.pinnedCPUs == [0, 1])
        #expect(made.worker.timeouts.drainNs == 1_500_000_000)
        #expect(
            made.lifecycle
                == LifecyclePolicy(readyTimeoutNs: 2_000_000_000, drainingGenerationsMax: 3, workerStallNs: 0))
        #expect(PlanText.describe(made.exporter) == "JSON to http://c:4318/v1/traces")
        #expect(made.exporter?.batchSpansMin == 5 && made.spanBufferBytes == 1 << 20)
        #expect(made.log.level == .debug && made.log.format == .json && made.accessLog == .standardOutput)
        #expect(made.worker.limits.requestHeadBytesMax == 2048 && made.worker.limits.requestBodyBytesMax == 1 << 20)
        #expect(made.worker.attemptsMax == 4 && made.worker.limits.connectionsMax == 77)
        #expect(made.worker.timeouts.connectNs == 250_000_000 && made.worker.timeouts.keepAliveNs == 9_000_000_000)
        #expect(made.worker.pool.connectionsMax == 11 && made.worker.pool.waitNs == 500_000_000)
        #expect(made.configPath == "/etc/lb.json" && made.fileText?.contains("Where to listen") == true)
    }

    @Test func flagsWinOverTheFile() throws {
        let text = """
            {\(backends), listeners: [{address: "::1", port: 1}], workers: 2, pin_workers: true,
             timeouts: {connect: 5, keep_alive: 6}, logging: {level: "debug"}}
            """
        let made = try load(
            text, ["-p", "2", "--connect-timeout", "7", "--no-pin-workers", "--log-level=error", "-b", "127.0.0.1:1"])
        #expect(made.listen.description == "[::1]:2")
        #expect(made.workerCount == 2 && made.pinnedCPUs == nil)
        #expect(made.worker.timeouts.connectNs == 7_000_000_000 && made.worker.timeouts.keepAliveNs == 6_000_000_000)
        #expect(made.log.level == .error)
        #expect(made.worker.backends.map(\.name) == ["127.0.0.1:1"])
    }

    @Test func nullLeavesTheDefault() throws {
        let made = try load("{\(backends), workers: null, listeners: null, timeouts: {connect: null}, tracing: null}")
        #expect(made.workerCount == 1 && made.listen.port == 8080)
        #expect(made.worker.timeouts.connectNs == 2_000_000_000)
    }

    @Test(
        arguments: [
            (
                #"{"timeouts": {"connect": "abc"}}"#,
                #"/etc/lb.json: timeouts.connect: use seconds from 0.001 to 31536000, such as 0.5, not "abc" (line 1, column 26)"#
            ),
            (
                "{\n  workers: 0.5\n}",
                "/etc/lb.json: workers: use a whole number from 1 to 512, not 0.5 (line 2, column 12)"
            ),
            (#"{"limits": {"body": -1}}"#, "limits.body: use bytes from 0 to 1048576g"),
            (#"{"limits": {"body": true}}"#, "limits.body: use bytes from"),
            (#"{"limits": 5}"#, "limits: use an object"),
            (#"{"workers": ""}"#, #"workers: use a whole number from 1 to 512, not """#),
            (#"{"tracing": {"service_name": ""}}"#, "tracing.service_name: use a text that says something"),
            (#"{"limits": {"body": {}}}"#, "not an object"),
            (#"{"pin_workers": "yes"}"#, "pin_workers: use true or false"),
            (#"{"tracing": {"service_name": 5}}"#, "tracing.service_name: use a text in quotes, not 5"),
            (
                #"{"tracing": {"protocol": "grpc"}}"#,
                "tracing.protocol: use one of http/protobuf, http/json, not \"grpc\""
            ),
            (#"{"tracing": {"endpoint": "is invalid for ': "}}"#, "tracing.endpoint: begin the URL with"),
            (#"{"listeners": [{"port": 70000}]}"#, "listeners[0].port: use a whole number from 0 to 65535, not 70000"),
            (#"{"listeners": [{"address": "x"}]}"#, "listeners[0].address: use an IPv4 or IPv6 address"),
            (#"{"listeners": [{}, {}]}"#, "listeners[1]: this version listens in one place"),
            (#"{"listeners": []}"#, "listeners: name a place"), (#"{"listeners": {}}"#, "listeners: use a list"),
            (#"{"backends": "x"}"#, "backends: use a list of texts"),
            (#"{"backends": [5]}"#, "backends[0]: use a text"),
            (#"{"backends": ["127.0.0.1:1", "x"]}"#, "backends[1]: the port is missing; write HOST:PORT, not \"x\""),
            (#"{"backends": [{"address": "x:1", "connections_max": 0}]}"#, "backends[0].connections_max: use a whole"),
            (#"{"backends": [{"adress": "x:1"}]}"#, #"unknown key "adress" in backends[0]; did you mean "address"?"#),
            (#"{"backends": [{}]}"#, "backends[0]: the address is missing"), ("[]", "/etc/lb.json: use an object"),
            ("{", "/etc/lb.json: the file ends where a key was expected (line 1, column 2)"),
            ("{\n\n \"ä\": nope }", "nope stands where a value was expected (line 3, column 7)"),
            ("{backends: [], backends: []}", "the key \"backends\" stands twice; leave one (line 1, column 16)"),
            (#"{"timeouts": {"connect": 1, "connect": 2}}"#, "the key \"connect\" in timeouts stands twice"),
        ])
    func errorsNameThePathAndWhatIsExpected(text: String, message: String) {
        let failure = failure(text)
        #expect(failure.hasPrefix("/etc/lb.json: ") && failure.contains(message), "\(failure)")
    }

    @Test(
        arguments: [
            ("{timeout: 5}", #"unknown key "timeout"; did you mean "timeouts"?"#),
            ("{timeouts: {conect: 5}}", #"unknown key "conect" in timeouts; did you mean "connect"?"#),
            ("{connect: 5}", #"unknown key "connect"; did you mean "timeouts.connect"?"#),
            ("{max_connections: 5}", #"did you mean "limits.connections"?"#),
            ("{timeouts: {\"a\\u0000\": 5}}", "no character"), ("{'limits.body': 5}", "unknown key"),
            ("{'listeners[0]': {}}", "unknown key"), ("{check: true}", #"unknown key "check"; there are: listeners"#),
        ])
    func unknownKeysAreErrorsWithASuggestion(text: String, message: String) {
        #expect(failure(text).contains(message), "\(failure(text))")
    }

    @Test func whatIsMissingAltogetherIsAnError() {
        #expect(failure("{}").contains("backends"))
    }

    @Test func namesAreResolvedAsThoseOfFlags() {
        let end = #expect(throws: CommandLineEnd.self) { try load("{backends: ['nobody:80']}") }
        #expect(end == .failure(.runTime("cannot resolve nobody")))
        #expect(failure("{backends: ['nobody:80']}", "--check") == "cannot resolve nobody")
    }

    @Test func longValuesAreCutInErrors() {
        let long = String(repeating: "x", count: 100_000)
        #expect(failure("{workers: '\(long)'}").utf8.count < 300)
        #expect(failure("{'\(long)': 1}").utf8.count < 500)
    }

    @Test func whatIsPrintedSaysTheSame() throws {
        let text = """
            {backends: ["127.0.0.1:1", {address: "unix:/x \\u00e4\\"", connections_max: 3}, "name:80"], pin_workers: true,
             tracing: {endpoint: "http://c/", service_name: "a b"}, limits: {body: 12345}, timeouts: {connect: 0.125}}
            """
        let first = printed(text, "--keep-alive-timeout", "7", "-w", "3", "--access-log", "/x")
        #expect(printed(first) == first)
        for fact in [
            "\"connections_max\": 3", "\"workers\": 3", "\"pin_workers\": true", "\"keep_alive\": 7",
            "\"connect\": 0.125",
            "\"body\": \"12345\"", "\"access_log\": \"/x\"", "\"service_name\": \"a b\"", "\"address\": null",
        ] { #expect(first.contains(fact), "\(fact) in \(first)") }
        #expect(printed("{\(backends)}").contains("\"workers\": null"))
    }

    @Test func serviceSettingsReachTheConfiguration() throws {
        let who = "user: '\(getuid())', group: '\(getgid())'"
        let text = "{\(backends), lifecycle: {watch_config: true, pid_file: '/run/lb.pid', \(who)}}"
        let made = try load(text)
        #expect(made.service.pidFile == "/run/lb.pid")
        #expect(made.service.watched == [WatchedFile(path: "/etc/lb.json", text: text)])
        #expect(made.credentials?.user == getuid() && made.credentials?.group == getgid())
        #expect(try load(text, ["--no-watch-config"]).service.watched == [])
    }

    @Test func watchingNeedsAFile() {
        let error = #expect(throws: StartFailure.self) { try configuration(["-b", "127.0.0.1:1", "--watch-config"]) }
        #expect(error?.message.contains("--config") == true)
    }

    @Test func whatCannotRunIsNotPrinted() {
        #expect(failure("{}", "--print-config").contains("backends"))
    }

    @Test func everyFlagHasItsKeyAndEveryKeyItsFlag() throws {
        let end = #expect(throws: CommandLineEnd.self) { try CommandLineOptions.parsed(["--help"]) }
        guard case .text(let help) = end else { Issue.record("no help"); return }
        let flags = help.split { !($0.isLetter || $0.isNumber || $0 == "-") }.filter { $0.hasPrefix("--") }.map(
            String.init)
        // These are about the file itself, or not about what runs; backends have a list of their own.
        let apart: Set = ["--config", "--check", "--print-config", "--backend", "--version", "--help"]
        let known = Set(Setting.all.map(\.flag)).union(
            Setting.all.filter { $0.form == .flag }.map { $0.argument("false") })
        #expect(Set(flags).subtracting(apart) == known)
        #expect(Set(Setting.all.map(\.path)).count == Setting.all.count)
    }

    @Test func everySettingReachesItsOwnOption() throws {
        let said = "{\(backends), listeners: [{port: 1, address: '::1'}], tracing: {endpoint: 'http://c'}}"
        let before = printed(said).split(separator: "\n")
        // A port for TLS needs certificates.
        for setting in Setting.all where setting.form == .quantity && setting.path != "tls.port" {
            // 131,072 is enough for those that 7 is too little for.
            let arguments = ["7", "131072"].map { setting.argument($0) }.filter {
                (try? CommandLineOptions.parsed([$0])) != nil
            }
            let after = printed(said, try #require(arguments.first)).split(separator: "\n")
            let changed = zip(before, after).filter { $0 != $1 }.map { String($1) }
            let key = setting.path.split { ".[]".contains($0) }.last!
            #expect(changed.count == 1 && changed[0].contains("\"\(key)\": "), "\(setting.path): \(changed)")
        }
    }

    @Test(arguments: [("timeout", "timeouts", 1), ("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)])
    func distancesCountLetters(first: String, second: String, distance: Int) {
        #expect(Suggestion.distance(first, second) == distance)
        #expect(Suggestion.distance(second, first) == distance)
    }
}
