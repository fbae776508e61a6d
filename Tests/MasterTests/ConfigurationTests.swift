import Exporter
import ShmRing
import Testing
import Worker

@testable import Master

/// A configuration as a start would make it, with a resolver that knows one name.
func configuration(_ arguments: [String], _ surroundings: Surroundings = Surroundings()) throws -> Configuration {
    try Configuration(CommandLineOptions.parsed(arguments), surroundings) { (host, port) throws(StartFailure) in
        guard host == "app" else { throw .runTime("cannot resolve \(host)") }
        return [SocketAddress(ip: "::1", port: port)!, SocketAddress(ip: "127.0.0.1", port: port)!]
    }
}

@Suite struct ConfigurationTests {
    private let backend = ["-b", "127.0.0.1:9001"]

    @Test func defaultsAreThoseOfTheWorker() throws {
        let made = try configuration(backend, Surroundings(availableCPUs: [0, 2, 5]))
        #expect(made.listen == .all(port: 8080))
        #expect(made.workerCount == 3)
        #expect(made.pinnedCPUs == nil)
        #expect(made.exporter == nil && !made.worker.isTracing)
        #expect(made.accessLog == nil)
        #expect(made.worker.limits.requestHeadBytesMax == 32 * 1024)
        #expect(made.worker.timeouts.connectNs == 2_000_000_000)
        #expect(made.spanBufferBytes == 16 << 20)
    }

    @Test(
        arguments: [
            ("--max-request-head", "2k", \.limits.requestHeadBytesMax, 2048),
            ("--max-request-fields", "3", \.limits.requestFieldsMax, 3),
            ("--max-request-target", "100", \.limits.requestTargetBytesMax, 100),
            ("--max-response-head", "4k", \.limits.responseHeadBytesMax, 4096),
            ("--max-body", "1m", \.limits.requestBodyBytesMax, 1 << 20),
            ("--max-connections", "5", \.limits.connectionsMax, 5),
            ("--max-requests-per-connection", "6", \.limits.requestsPerConnectionMax, 6),
            ("--h2-max-concurrent-streams", "11", \.limits.http2StreamsMax, 11),
            ("--max-attempts", "7", \.attemptsMax, 7),
            ("--upstream-max-connections", "8", \.pool.connectionsMax, 8),
            ("--upstream-max-idle", "9", \.pool.idleMax, 9),
            ("--upstream-queue", "10", \.pool.waitersMax, 10),
        ] as [(String, String, KeyPath<WorkerConfiguration, Int> & Sendable, Int)])
    func limitsReachTheWorker(
        flag: String, text: String, path: KeyPath<WorkerConfiguration, Int> & Sendable, value: Int
    ) throws {
        #expect(try configuration(backend + [flag, text]).worker[keyPath: path] == value)
    }

    @Test(
        arguments: [
            ("--request-head-timeout", \.timeouts.requestHeadNs), ("--keep-alive-timeout", \.timeouts.keepAliveNs),
            ("--client-body-timeout", \.timeouts.clientBodyNs), ("--client-stall-timeout", \.timeouts.clientStallNs),
            ("--half-close-timeout", \.timeouts.halfCloseNs), ("--connect-timeout", \.timeouts.connectNs),
            ("--response-head-timeout", \.timeouts.responseHeadNs),
            ("--upstream-stall-timeout", \.timeouts.upstreamStallNs),
            ("--upstream-idle-timeout", \.timeouts.upstreamIdleNs), ("--tunnel-idle-timeout", \.timeouts.tunnelIdleNs),
            ("--drain-timeout", \.timeouts.drainNs), ("--upstream-queue-timeout", \.pool.waitNs),
            ("--upstream-ping-interval", \.timeouts.upstreamPingNs),
            ("--upstream-h2-ping-timeout", \.timeouts.pingAnswerNs),
            ("--upstream-h2-settings-timeout", \.timeouts.settingsAnswerNs),
            ("--upstream-h2-pause", \.timeouts.http1PauseNs),
        ] as [(String, KeyPath<WorkerConfiguration, UInt64> & Sendable)])
    func timeoutsReachTheWorker(flag: String, path: KeyPath<WorkerConfiguration, UInt64> & Sendable) throws {
        #expect(try configuration(backend + [flag, "0.125"]).worker[keyPath: path] == 125_000_000)
    }

    @Test func backendsKeepTheirOrderAndAllTheirAddresses() throws {
        let made = try configuration(["-b", "app:80", "--backend", "127.0.0.1:9001", "-b", "unix:/x"])
        #expect(made.worker.backends.map(\.name) == ["app:80", "127.0.0.1:9001", "unix:/x"])
        #expect(made.worker.backends.map(\.hostname) == ["app", nil, nil])
        #expect(made.worker.backends[0].addresses.map(\.description) == ["[::1]:80", "127.0.0.1:80"])
    }

    @Test func pinnedWorkersGoAroundTheAffinityMask() throws {
        let made = try configuration(backend + ["--pin-workers", "-w", "5"], Surroundings(availableCPUs: [1, 3]))
        #expect(made.pinnedCPUs == [1, 3, 1, 3, 1])
    }

    @Test func addressesMayHaveBrackets() throws {
        let made = try configuration(backend + ["--address", "[::1]", "-p", "81"])
        #expect(made.listen.description == "[::1]:81")
    }

    @Test func nothingToBalanceToIsAUsageError() {
        let error = #expect(throws: StartFailure.self) { try configuration([]) }
        #expect(error?.kind == .usage)
        #expect(error?.message.contains("--backend") == true)
    }

    @Test func anUnknownNameIsARunTimeError() {
        let error = #expect(throws: StartFailure.self) { try configuration(["-b", "nobody:80"]) }
        #expect(error == .runTime("cannot resolve nobody"))
    }

    @Test func theAccessLogGoesToAFileOrToStandardOutput() throws {
        #expect(try configuration(backend + ["--access-log", "-"]).accessLog == .standardOutput)
        #expect(try configuration(backend + ["--access-log", "/tmp/x"]).accessLog == .file(path: "/tmp/x"))
        #expect(throws: StartFailure.self) { try configuration(backend + ["--access-log", ""]) }
    }

    @Test func thePlanNamesWhatWouldRun() throws {
        let made = try configuration(
            ["-b", "app:80", "-b", "[::1]:9002", "-w", "3", "-p", "81", "--otel-endpoint", "http://c"])
        let text = PlanText.describe(made)
        for fact in ["*:81", "3, up to", "0: app:80 at ::1, 127.0.0.1", "1: [::1]:9002", "to http://c/v1/traces"] {
            #expect(text.contains(fact), "\(fact) in \(text)")
        }
    }
}
