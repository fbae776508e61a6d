import Logging
import ShmRing
import Testing

@testable import Exporter

@Suite struct PostMortemsTests {
    private let segment: SpanSegment
    private let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    init() throws {
        segment = try SpanSegment(ringCount: 2, ringBytesMin: 0, generation: 4, masterPID: 1)
    }

    /// The trees that wait in the exporter's own ring.
    private func trees(_ consumer: inout SegmentConsumer) -> [TraceTree] {
        var walk = TreeWalk(naming: .classic)
        var found: [TraceTree] = []
        while let (tree, end) = consumer.next(slot: 2, { TraceTree(record: $0, &walk) }) {
            if let tree { found.append(tree) }
            consumer.release(through: end)
        }
        return found
    }

    private func begin(_ table: InflightTable, _ number: UInt64, isSecure: Bool = false) -> Int32 {
        let index = table.take()
        table.begin(
            index,
            InflightTable.Identity(
                traceIDHigh: 1, traceIDLow: number, spanID: number << 8, parentSpanID: 77, flags: 3,
                startUnixNs: 1_000_000, isSecure: isSecure),
            method: "GET".utf8.span, authority: "h.test".utf8.span, path: "/\(number)".utf8.span)
        return index
    }

    private func values(_ node: TraceTree.Node) -> [String: String] {
        Dictionary(node.attributes.map { ($0.key, $0.value) }, uniquingKeysWith: { first, _ in first })
    }

    @Test func aRequestThatAwaitedItsResponseBecomesARootAndAnAttempt() throws {
        let table = segment.inflightTable(slot: 1, incarnation: 0)
        table.attempt(begin(table, 5), spanID: 0xabc, startNs: 200, backend: 1, "b.test:80")
        segment.noteDeath(slot: 1, incarnation: 0, signal: 11, unixNs: 1_000_900)
        var postMortems = PostMortems(segment: segment, logger: logger)
        #expect(postMortems.isDone == false)
        postMortems.work()
        #expect(postMortems.isDone == true)
        var consumer = segment.consumer()
        let tree = try #require(trees(&consumer).first)
        #expect(tree.traceID == (1, 5) && tree.parentSpanID == 77)
        #expect(tree.nodes.map(\.facts.name) == [.proxyRequest, .backendRequest])
        let root = tree.nodes[0]
        #expect(root.facts.id == 5 << 8 && root.facts.kind == .server && root.status == .error)
        #expect(root.facts.startUnixNs == 1_000_000 && root.facts.endUnixNs == 1_000_900)
        #expect(
            values(root) == [
                "http.method": "GET", "http.url": "http://h.test/5", "http.host": "h.test", "backend.id": "1",
                "backend.host": "b.test:80", "lb.worker": "1", "lb.generation": "4", "worker.signal": "11",
                "worker.last_phase": "awaiting_response", "error.type": "worker_crashed",
            ])
        let attempt = tree.nodes[1]
        #expect(attempt.facts.id == 0xabc && attempt.facts.kind == .client && attempt.status == .error)
        #expect(attempt.facts.parentID == 5 << 8)
        #expect(attempt.facts.startUnixNs == 1_000_200 && attempt.facts.endUnixNs == 1_000_900)
        #expect(values(attempt)["error.type"] == "worker_crashed")
    }

    @Test func aConnectionThatWentWithTheWorkerIsToldOnce() throws {
        let table = segment.inflightTable(slot: 1, incarnation: 0)
        let ids = ConnectionTraceIDs(highSeed: 11, lowSeed: 12, spanSeed: 13)
        table.traces(ids)
        for (number, startNs) in [(5 as UInt64, 300 as UInt64), (6, 200)] {
            table.attempt(
                begin(table, number), spanID: number, startNs: startNs, backend: 1, "b.test:80", isHTTP2: true,
                connection: 7)
        }
        table.attempt(begin(table, 8), spanID: 8, startNs: 1, backend: 1, "b.test:80", connection: 0)
        segment.noteDeath(slot: 1, incarnation: 0, signal: 9, unixNs: 1_000_900)
        var postMortems = PostMortems(segment: segment, logger: logger)
        postMortems.work()
        var consumer = segment.consumer()
        let found = trees(&consumer)
        #expect(
            found.map { $0.nodes[0].facts.name } == [.upstreamConnection, .proxyRequest, .proxyRequest, .proxyRequest])
        let connection = try #require(found.first)
        let target = ids[7]
        #expect(connection.traceID == (target.traceIDHigh, target.traceIDLow) && connection.parentSpanID == 0)
        let span = connection.nodes[0]
        #expect(span.facts.id == target.spanID && span.facts.kind == .internal && span.status == .error)
        #expect(span.facts.startUnixNs == 1_000_200 && span.facts.endUnixNs == 1_000_900)
        #expect(
            values(span) == [
                "connection.id": "w1-7", "backend.host": "b.test:80", "backend.id": "1", "lb.worker": "1",
                "lb.generation": "4", "http.flavor": "2", "connection.close_reason": "worker_crashed",
                "worker.signal": "9", "error.type": "worker_crashed",
            ])
        #expect(found[1...].map { $0.nodes[1].links.count } == [1, 1, 0])
        #expect(found[1].nodes[1].links[0].target == target)
    }

    @Test func connectionsOfAWorkerBeforeAreNotMistakenForIts() {
        segment.inflightTable(slot: 0, incarnation: 0).traces(ConnectionTraceIDs(highSeed: 1, lowSeed: 2, spanSeed: 3))
        // The same memory, some processes later, without traces of connections.
        let table = segment.inflightTable(slot: 0, incarnation: 4)
        table.attempt(begin(table, 5), spanID: 5, startNs: 1, backend: 1, "b", connection: 7)
        segment.noteDeath(slot: 0, incarnation: 4, signal: 9, unixNs: 1_000_900)
        var postMortems = PostMortems(segment: segment, logger: logger)
        postMortems.work()
        var consumer = segment.consumer()
        let found = trees(&consumer)
        #expect(found.count == 1 && found.first?.nodes.last?.links.count == 0)
    }

    @Test func anAttemptOverHTTP2IsNamedSo() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        for (number, isHTTP2) in [(5 as UInt64, true), (6, false)] {
            table.attempt(begin(table, number), spanID: number, startNs: 1, backend: 1, "b", isHTTP2: isHTTP2)
        }
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 1_000_900)
        var postMortems = PostMortems(segment: segment, logger: logger)
        postMortems.work()
        var consumer = segment.consumer()
        let attempts = trees(&consumer).map(\.nodes[1])
        #expect(attempts.map(\.facts.name) == [.backendRequestH2, .backendRequest])
        #expect(attempts.map { values($0)["http.flavor"] } == [nil, "1.1"])
    }

    @Test func aResponseThatHadBegunEndedTheAttempt() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        let index = begin(table, 5)
        table.attempt(index, spanID: 0xabc, startNs: 200, backend: 1, "b")
        table.response(index, status: 200, startNs: 500, .streamingResponse)
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 1_000_900)
        var postMortems = PostMortems(segment: segment, logger: logger)
        postMortems.work()
        var consumer = segment.consumer()
        let tree = try #require(trees(&consumer).first)
        #expect(values(tree.nodes[0])["http.status_code"] == "200")
        #expect(values(tree.nodes[0])["worker.last_phase"] == "streaming_response")
        #expect(tree.nodes[1].status == .unset && tree.nodes[1].facts.endUnixNs == 1_000_500)
        #expect(values(tree.nodes[1])["error.type"] == nil)
    }

    @Test func withoutAnAttemptThereIsTheRootAlone() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        table.connecting(begin(table, 5, isSecure: true), backend: 0, "b")
        segment.noteDeath(slot: 0, incarnation: 0, signal: 0, unixNs: 1_000_900)
        var postMortems = PostMortems(segment: segment, logger: logger)
        postMortems.work()
        var consumer = segment.consumer()
        let tree = try #require(trees(&consumer).first)
        #expect(tree.nodes.count == 1)
        #expect(values(tree.nodes[0])["worker.signal"] == "0")
        #expect(values(tree.nodes[0])["http.url"] == "https://h.test/5")
    }

    @Test func everyRequestIsToldOnceAndAgainOnlyByASuccessor() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        for number in 1...20 as ClosedRange<UInt64> { _ = begin(table, number) }
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 1_000_900)
        var first = PostMortems(segment: segment, logger: logger)
        first.work()
        first.work()
        // It dies with everything published and nothing delivered; its successor reads the same ring.
        var second = PostMortems(segment: segment, logger: logger)
        second.work()
        var consumer = segment.consumer()
        #expect(trees(&consumer).map(\.nodes[0].facts.id) == (1...20).map { $0 << 8 })
    }

    @Test func moreThanTheRingHoldsWaitsForRoom() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        let numbers = 1...1000 as ClosedRange<UInt64>
        for number in numbers { _ = begin(table, number) }
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 1_000_900)
        var postMortems = PostMortems(segment: segment, logger: logger)
        postMortems.work()
        #expect(postMortems.isBlocked == true && postMortems.isDone == false)
        var consumer = segment.consumer()
        var told: [UInt64] = []
        for _ in 0..<100 where postMortems.isDone == false {
            told += trees(&consumer).map(\.nodes[0].facts.id)
            postMortems.work()
        }
        told += trees(&consumer).map(\.nodes[0].facts.id)
        #expect(told == numbers.map { $0 << 8 })
        #expect(postMortems.isBlocked == false)
        #expect(segment.counters.treesDroppedRingFull == 0)
    }
}
