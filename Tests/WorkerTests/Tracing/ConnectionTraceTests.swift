import ShmRing
import Testing

@testable import Worker

/// What the tree of a connection says, to the nanosecond, and the links that lead there.
@Suite struct ConnectionTraceTests {
    private let stage = TracerStage(tracesConnections: true)
    private static let request = "GET / HTTP/1.1\r\nHost: site.test\r\nUser-Agent: curl/8\r\n\r\n"

    private func history(_ exchange: Exchange? = nil, number: UInt64 = 41) -> ConnectionHistory {
        let history = ConnectionHistory(
            number: number, startedNs: TracerStage.startNs + 30, startedUnixNs: TracerStage.startUnixNs + 30)
        let exchange = exchange ?? stage.exchange(Self.request)
        history.isSeen(by: exchange.identity)
        return history
    }

    private func end(at offset: UInt64, answered: Int = 0, isHTTP2: Bool? = false) -> Tracer.ConnectionEnd {
        Tracer.ConnectionEnd(atNs: TracerStage.startNs + offset, requestsAnswered: answered, isHTTP2: isHTTP2)
    }

    /// A request over a connection of its own.
    private func made(_ endpoint: Int = 0) -> Exchange {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, endpoint)
        stage.connect(exchange)
        return exchange
    }

    @Test func aConnectionHasItsLifeItsMakingAndItsTotals() throws {
        let exchange = made(1)
        let history = history(exchange)
        history.made(by: exchange)
        history.requestStarted(exchange.identity)
        history.requestStarted(exchange.identity)
        history.closes(.peerClosed)
        var end = end(at: 1030, answered: 1)
        end.bytes = (100, 2_000_000_000_000)
        let tree = try #require(stage.trace(history, 1, end))
        #expect(
            tree.lines == [
                "upstream_connection INTERNAL 0-1000", "| connection.id = \"w2-41\"",
                "| backend.host = \"b.test:9002\"",
                "| backend.id = 1", "| lb.worker = 2", "| lb.generation = 3", "| connection.tls = false",
                "| http.flavor = \"1.1\"", "| connection.requests_started = 2", "| connection.requests_answered = 1",
                "| connection.bytes_sent = 100", "| connection.bytes_received = 2000000000000",
                "| connection.close_reason = \"peer_closed\"", "  dns_resolution INTERNAL 0-0",
                "  | dns.hostname = \"b.test\"", "  | dns.answers = [\"192.0.2.20\", \"2001:db8::20\"]",
                "  | dns.cached = true", "  tcp_connect INTERNAL 0-20", "  | net.peer.name = \"b.test\"",
                "  | net.peer.port = 9002", "  | net.peer.ip = \"192.0.2.20\"",
            ])
        #expect(tree.parentSpanID == 0 && tree.flags == 3 && tree.baseUnixNs == TracerStage.startUnixNs + 30)
    }

    @Test func whatHappenedOnAnHTTP2ConnectionIsItsEvents() throws {
        let history = history()
        let start = TracerStage.startNs + 30
        history.settingsReceived(.init(streamsMax: 7, windowBytes: 70_000), atNs: start + 10)
        history.pingSent(atNs: start + 1000)
        history.pingAnswered(atNs: start + 6000)
        history.settingsReceived(.init(streamsMax: .max, windowBytes: 1), atNs: start + 7000)
        history.goawayReceived(
            .init(lastStreamID: 9, errorCode: 11, debugData: Array("too many".utf8)), atNs: start + 8000)
        history.closes(.goaway)
        let tree = try #require(stage.trace(history, 0, end(at: 9030, isHTTP2: true)))
        #expect(
            tree.lines.dropFirst(6) == [
                "| connection.tls = false", "| http.flavor = \"2\"", "| connection.requests_started = 0",
                "| connection.requests_answered = 0", "| h2.settings_count = 2", "| h2.goaway_count = 1",
                "| h2.ping_count = 1", "| h2.ping_rtt_min_us = 5", "| h2.ping_rtt_max_us = 5",
                "| connection.close_reason = \"goaway\"", "| error.type = \"goaway\"",
                "| status.message = \"the backend gave the connection up with an error code\"",
                "! settings_received at 10", "! | h2.max_concurrent_streams = 7", "! | h2.initial_window_size = 70000",
                "! ping_acknowledged at 6000", "! | h2.ping_rtt_us = 5", "! settings_received at 7000",
                "! | h2.initial_window_size = 1", "! goaway_received at 8000",
                "! | h2.error_code = \"ENHANCE_YOUR_CALM\"", "! | h2.last_stream_id = 9",
                "! | h2.debug_data = \"too many\"",
            ])
        #expect(tree.lines[0].hasSuffix(" ERROR"))
    }

    @Test func aGoawayWithoutAnErrorIsNone() throws {
        let history = history()
        history.goawayReceived(.init(lastStreamID: 9, errorCode: 0, debugData: []), atNs: TracerStage.startNs + 40)
        history.closes(.goaway)
        let tree = try #require(stage.trace(history, 0, end(at: 50)))
        #expect(tree.lines[0] == "upstream_connection INTERNAL 0-20")
    }

    @Test func aConnectionThatCouldNotBeMadeSaysWhy() throws {
        let exchange = made()
        exchange.attempt.error = .connectRefused
        let history = history(exchange)
        history.made(by: exchange)
        history.closes(.connectFailed, .connectRefused)
        let tree = try #require(stage.trace(history, 0, end(at: 50, isHTTP2: nil)))
        #expect(tree.lines[0] == "upstream_connection INTERNAL 0-20 ERROR")
        #expect(tree.lines.contains("| error.type = \"connect_refused\""))
        #expect(tree.lines.contains("| connection.close_reason = \"connect_failed\""))
        #expect(tree.lines.contains("  tcp_connect INTERNAL 0-20 ERROR"))
        #expect(!tree.lines.contains { $0.contains("http.flavor") })
    }

    @Test func aConnectionThatNoWrittenRequestHasUsedIsNotWritten() {
        let exchange = stage.exchange(
            "GET / HTTP/1.1\r\nHost: h\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n\r\n")
        let history = ConnectionHistory(number: 1, startedNs: 1, startedUnixNs: 1)
        history.isSeen(by: exchange.identity)
        history.requestStarted(exchange.identity)
        #expect(stage.trace(history, 0, end(at: 50)) == nil)
        history.requestStarted(stage.exchange(Self.request).identity)
        #expect(stage.trace(history, 0, end(at: 50)) != nil)
    }

    // MARK: Links

    private func usual(isTree: Bool) throws -> TracePicture {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 1)
        stage.reuse(exchange)
        stage.send(exchange)
        stage.answer(exchange)
        if isTree { exchange.keepTraceState([]) }
        return try #require(stage.trace(exchange))
    }

    @Test func theShortWayLinksAsATreeDoes() throws {
        let short = try usual(isTree: false)
        let tree = try usual(isTree: true)
        #expect(short.isRequestRecord && !tree.isRequestRecord)
        #expect(short.lines == tree.lines)
        #expect(short.spans.map(\.links) == tree.spans.map(\.links))
        #expect(short.span("backend_request")?.links == [try #require(stage.target(41))])
        #expect(short.spans.flatMap(\.links).count == 1)
        let place = try #require(short.lines.firstIndex(of: "  > link"))
        #expect(short.lines[place + 1] == "  > | connection.id = \"w2-41\"")
    }

    @Test func theLinkLeadsToTheConnectionsRoot() throws {
        let tree = try #require(stage.trace(history(), 0, end(at: 50)))
        let link = try #require(usual(isTree: false).span("backend_request")?.links.first)
        #expect(link == stage.target(41))
        #expect(link.spanID == tree.spans[0].id)
        #expect((link.traceIDHigh, link.traceIDLow) == (tree.traceIDHigh, tree.traceIDLow))
    }

    @Test func aConnectionThatFailedIsLinkedFromTheSpanOfItsMaking() throws {
        let exchange = made()
        exchange.attempt.error = .connectRefused
        exchange.attempt.failedAtNs = exchange.attempt.connectionEndNs
        exchange.error = .connectRefused
        let tree = try #require(stage.trace(exchange))
        #expect(tree.span("backend_request") == nil)
        #expect(tree.span("backend_connection")?.links == [try #require(stage.target(41))])
        #expect(tree.spans.flatMap(\.links).count == 1)
    }

    @Test func withoutAConnectionThereIsNoLink() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        exchange.attempt.error = .poolQueueFull
        exchange.error = .poolQueueFull
        #expect(try #require(stage.trace(exchange)).spans.allSatisfy { $0.links.isEmpty })
    }

    @Test func withoutConnectionTracesThereIsNoLink() throws {
        let stage = TracerStage()
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 1)
        stage.reuse(exchange)
        stage.send(exchange)
        stage.answer(exchange)
        let tree = try #require(stage.trace(exchange))
        #expect(tree.isRequestRecord && tree.spans.allSatisfy { $0.links.isEmpty })
    }

    @Test func idsAreThoseOfTheNumberAndNoOther() throws {
        let targets = try (1...2000).map { try #require(stage.target($0)) }
        #expect(Set(targets.map(\.spanID)).count == 2000)
        #expect(Set(targets.map(\.traceIDHigh) + targets.map(\.traceIDLow)).count == 4000)
        #expect(stage.target(7) == targets[6])
        #expect(TracerStage().target(7) == nil)
    }
}

@Suite struct ConnectionHistoryTests {
    private func history() -> ConnectionHistory { ConnectionHistory(number: 1, startedNs: 1, startedUnixNs: 1) }

    @Test func ofEachKindTheFirstAndTheLastAreKept() {
        let history = history()
        for number in 1...20 as ClosedRange<UInt64> {
            history.goawayReceived(.init(lastStreamID: Int32(number), errorCode: 0, debugData: []), atNs: number)
            history.settingsReceived(.init(streamsMax: UInt32(number)), atNs: number)
            history.pingSent(atNs: number * 100)
            history.pingAnswered(atNs: number * 100 + number)
        }
        #expect(history.notes.count == 3 * ConnectionHistory.notesMax)
        let last = history.notes.compactMap {
            if case .goaway(let goaway) = $0.note { goaway.lastStreamID } else { nil }
        }
        #expect(last == [1, 14, 15, 16, 17, 18, 19, 20])
        #expect(history.goawayCount == 20 && history.settingsCount == 20)
        #expect(history.pings.count == 20 && history.pings.minNs == 1 && history.pings.maxNs == 20)
    }

    @Test func theFirstReasonCountsAndTheFirstError() {
        let history = history()
        history.closes(.goaway)
        history.closes(.peerClosed, .upstreamClosed)
        history.closes(.reset, .upstreamReset)
        #expect(history.closeReason == .goaway)
        #expect(history.error == .upstreamClosed)
    }

    @Test func onlyAPingThatIsOutstandingAloneIsTimed() {
        var pings = PingTimes()
        #expect(pings.answered(atNs: 5) == nil)
        pings.sent(atNs: 10)
        pings.sent(atNs: 20)
        #expect(pings.answered(atNs: 30) == nil)
        #expect(pings.answered(atNs: 31) == nil)
        pings.sent(atNs: 40)
        #expect(pings.answered(atNs: 45) == 5)
        #expect(pings.answered(atNs: 46) == nil)
        #expect(pings.count == 1)
    }

    @Test func everyReasonHasATextOfItsOwn() {
        let reasons = (0...UInt8.max).compactMap(CloseReason.init(rawValue:))
        #expect(Set(reasons.map { "\($0.text)" }).count == reasons.count)
    }
}
