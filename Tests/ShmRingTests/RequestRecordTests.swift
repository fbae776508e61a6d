import CShims
import Testing

@testable import ShmRing

/// Request records go through a real ring, and `RequestExpander` makes trees of them. Unsafe: views arrays as raw
/// bytes.
@Suite struct RequestRecordTests {
    private let segment = SpanSegment.small()

    private static var facts: lb_request_header {
        var facts = lb_request_header()
        facts.trace_id_high = 0x0102_0304_0506_0708
        facts.trace_id_low = 0x090A_0B0C_0D0E_0F10
        facts.parent_span_id = 99
        facts.base_unix_ns = 1_700_000_000_000_000_000
        facts.root_span_id = 1
        facts.selection_span_id = 2
        facts.connection_span_id = 3
        facts.acquire_span_id = 4
        facts.request_span_id = 5
        facts.streaming_span_id = 6
        facts.connection_number = 1041
        facts.selection_start_ns = 10
        facts.selection_end_ns = 20
        facts.acquire_end_ns = 25
        facts.connection_end_ns = 30
        facts.request_start_ns = 40
        facts.request_end_ns = 100
        facts.streaming_start_ns = 110
        facts.end_ns = 200
        facts.status = 200
        facts.response_bytes = 7
        facts.body_bytes = 8
        facts.body_expected_bytes = 9
        facts.backend_index = 1
        facts.backend_count = 3
        facts.healthy_count = 2
        facts.idle_count = 4
        facts.active_count = 5
        facts.peer_port = 50123
        facts.worker = 2
        facts.generation = 6
        facts.trace_flags = 3
        facts.http_flavor = 1
        facts.body_type = UInt8(LB_BODY_LENGTH)
        return facts
    }

    private static let texts = [
        "GET", "http://site.test/a/longer/path", "site.test", "curl/8", "192.0.2.7", "b.test:9002", "round_robin",
    ]

    /// The record that a producer publishes for facts and texts.
    private func record(_ facts: lb_request_header = facts, texts: [String] = texts) -> [UInt8] {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        var facts = facts
        let counts = texts.map { UInt16($0.utf8.count) }
        facts.method_bytes = counts[0]
        facts.url_bytes = counts[1]
        facts.host_bytes = counts[2]
        facts.user_agent_bytes = counts[3]
        facts.peer_ip_bytes = counts[4]
        facts.backend_bytes = counts[5]
        facts.strategy_bytes = counts[6]
        guard var writer = producer.reserveRequest(textBytes: counts.reduce(0) { $0 + Int($1) }) else { return [] }
        for text in texts { writer.append(string: text) }
        producer.publish(writer, facts)
        guard let (bytes, end) = consumer.next(slot: 0, { unsafe $0.withUnsafeBytes { unsafe Array($0) } }) else {
            return []
        }
        consumer.release(through: end)
        return bytes
    }

    private static func tree(_ record: [UInt8]) -> TreeReading? {
        unsafe RequestExpander().withTree(record.span.bytes) { TreeReading($0) }
    }

    @Test func theTreeIsWhatTheFactsSay() throws {
        let tree = try #require(Self.tree(record()))
        #expect(!tree.isMalformed)
        #expect(tree.traceIDHigh == 0x0102_0304_0506_0708)
        #expect(tree.traceIDLow == 0x090A_0B0C_0D0E_0F10)
        #expect(tree.parentSpanID == 99)
        #expect(tree.baseUnixNs == 1_700_000_000_000_000_000)
        #expect(tree.traceFlags == 3)
        #expect(tree.traceState == "")
        let names: [SpanName] = [
            .proxyRequest, .backendSelection, .backendConnection, .poolAcquire, .backendRequest, .responseStreaming,
        ]
        #expect(tree.spans.map(\.name) == names.map(\.rawValue))
        #expect(tree.spans.map(\.id) == [1, 2, 3, 4, 5, 6])
        #expect(tree.spans.map(\.parent) == [nil, 0, 0, 2, 0, 0])
        #expect(tree.spans.map(\.startOffsetNs) == [0, 10, 20, 20, 40, 110])
        #expect(tree.spans.map(\.endOffsetNs) == [200, 20, 30, 25, 100, 200])
        #expect(tree.spans.map(\.kind) == [2, 1, 1, 1, 3, 1])
        #expect(tree.spans.allSatisfy { $0.status == 0 && $0.events.isEmpty })
    }

    @Test func everyFactHasItsAttribute() throws {
        let tree = try #require(Self.tree(record()))
        let texts: [(AttributeKey, Int, String)] = [
            (.httpMethod, 0, "GET"), (.httpURL, 0, "http://site.test/a/longer/path"), (.httpFlavor, 0, "1.1"),
            (.httpHost, 0, "site.test"), (.httpUserAgent, 0, "curl/8"), (.backendHost, 0, "b.test:9002"),
            (.netPeerIP, 0, "192.0.2.7"), (.lbStrategy, 1, "round_robin"), (.lbSelectedBackend, 1, "b.test:9002"),
            (.backendHost, 2, "b.test:9002"), (.connectionID, 2, "w2-1041"), (.poolOutcome, 3, "reused"),
            (.httpMethod, 4, "GET"), (.httpURL, 4, "http://site.test/a/longer/path"),
            (.httpBodyType, 5, "content_length"),
        ]
        for (key, span, text) in texts { #expect(tree.value(key, span: span) == .text(text)) }
        let numbers: [(AttributeKey, Int, Int64)] = [
            (.httpStatusCode, 0, 200), (.backendID, 0, 1), (.netPeerPort, 0, 50123),
            (.httpResponseContentLength, 0, 7), (.lbWorker, 0, 2), (.lbGeneration, 0, 6), (.lbBackendCount, 1, 3),
            (.lbHealthyCount, 1, 2), (.poolIdleCount, 3, 4), (.poolActiveCount, 3, 5), (.httpStatusCode, 4, 200),
            (.httpBodyExpectedLength, 5, 9), (.httpBodyBytesTransferred, 5, 8),
        ]
        for (key, span, number) in numbers { #expect(tree.value(key, span: span) == .int(number)) }
        #expect(tree.value(.connectionFromPool, span: 2) == .bool(true))
        #expect(tree.value(.httpBodyHadError, span: 5) == .bool(false))
        #expect(tree.value(.httpRequestContentLength) == nil)
    }

    @Test func whatIsNotThereIsLeftOut() throws {
        var facts = Self.facts
        facts.has_request_bytes = 1
        facts.request_bytes = 77
        facts.body_type = UInt8(LB_BODY_CHUNKED)
        facts.http_flavor = 0
        var texts = Self.texts
        texts[3] = ""
        let tree = try #require(Self.tree(record(facts, texts: texts)))
        #expect(tree.value(.httpRequestContentLength) == .int(77))
        #expect(tree.value(.httpUserAgent) == nil)
        #expect(tree.value(.httpFlavor) == .text("1.0"))
        #expect(tree.value(.httpBodyType, span: 5) == .text("chunked"))
        #expect(tree.value(.httpBodyExpectedLength, span: 5) == nil)
    }

    @Test(arguments: [(399, 0, 0), (404, 0, 2), (499, 0, 2), (500, 2, 2), (503, 2, 2)] as [(UInt32, UInt8, UInt8)])
    func aStatusIsAnErrorOfClientOrServer(status: UInt32, root: UInt8, request: UInt8) throws {
        var facts = Self.facts
        facts.status = status
        let tree = try #require(Self.tree(record(facts)))
        #expect(tree.spans.map(\.status) == [root, 0, 0, 0, request, 0])
    }

    private static let unsound: [@Sendable (inout lb_request_header) -> Void] = [
        {
            $0.trace_id_high = 0; $0.trace_id_low = 0
        }, { $0.root_span_id = 0 }, { $0.selection_span_id = 0 },
        { $0.connection_span_id = 0 }, { $0.acquire_span_id = 0 }, { $0.request_span_id = 0 },
        { $0.streaming_span_id = 0 }, { $0.selection_start_ns = 21 }, { $0.selection_end_ns = 26 },
        { $0.connection_end_ns = 19 }, { $0.acquire_end_ns = 19 }, { $0.request_end_ns = 39 },
        { $0.link_span_id = 1 }, { $0.streaming_start_ns = 201 }, { $0.body_type = 4 }, { $0.http_flavor = 3 },
        { $0.has_request_bytes = 2 }, { $0.backend_flavor = 1 },
        {
            $0.backend_flavor = UInt16(LB_FLAVOR_2)
            $0.end_ns = $0.selection_end_ns - 1
            $0.streaming_start_ns = 0
        },
    ]

    @Test(arguments: unsound.indices)
    func factsThatCannotBeAreRefused(index: Int) {
        var facts = Self.facts
        Self.unsound[index](&facts)
        #expect(Self.tree(record(facts)) == nil)
    }

    @Test func theAttemptIsLinkedToItsConnection() throws {
        var facts = Self.facts
        #expect(Self.tree(record(facts))?.spans.allSatisfy { $0.links.isEmpty } == true)
        facts.link_trace_id_high = 7
        facts.link_trace_id_low = 8
        facts.link_span_id = 9
        let tree = try #require(Self.tree(record(facts)))
        #expect(!tree.isMalformed)
        #expect(tree.spans.map(\.links.count) == [0, 0, 0, 0, 1, 0])
        let link = tree.spans[4].links[0]
        #expect(link.target == LinkTarget(traceIDHigh: 7, traceIDLow: 8, spanID: 9, traceFlags: 3))
        #expect(link.attributes == [.init(key: AttributeKey.connectionID.rawValue, value: .text("w2-1041"))])
    }

    @Test func aRecordCutAnywhereIsRefused() {
        let whole = record()
        for count in 0..<whole.count - 8 {
            let cut = Array(whole.prefix(count))
            guard count >= MemoryLayout<lb_record_header>.size else { continue }
            #expect(Self.tree(cut) == nil, "\(count) bytes")
        }
    }

    @Test func aTextIsNoLongerThanATreesTexts() {
        var texts = Self.texts
        texts[1] = String(repeating: "u", count: RequestReader.textBytesMax)
        #expect(Self.tree(record(texts: texts))?.value(.httpURL) == .text(texts[1]))
        texts[1] += "u"
        #expect(Self.tree(record(texts: texts)) == nil)
    }

    @Test func textsOfEveryLengthArriveWhole() {
        var texts = Self.texts
        for count in 0...40 {
            for index in texts.indices where index != 3 { texts[index] = String(repeating: "x", count: count) }
            texts[3] = String(repeating: "y", count: 40 - count)
            let tree = Self.tree(record(texts: texts))
            #expect(tree?.value(.httpURL) == .text(texts[1]))
            #expect(tree?.value(.httpURL, span: 4) == .text(texts[1]))
            #expect(tree?.value(.lbStrategy, span: 1) == .text(texts[6]))
            #expect(tree?.value(.httpUserAgent) == (count == 40 ? nil : .text(texts[3])))
        }
    }

    @Test func aWriterKnowsWhetherItsTextsAreASCII() {
        var producer = segment.producer(slot: 0)
        for (text, isASCII) in [("", true), ("abc", true), ("abcdefghijk", true), ("é", false), ("abcdefghié", false)] {
            guard var writer = producer.reserveRequest(textBytes: 64) else { continue }
            writer.append(string: text)
            let found = writer.isASCII
            #expect(found == isASCII, "\(text)")
        }
        #expect(segment.tail() == 0, "a writer that is dropped leaves nothing")
    }

    @Test func aFullRingDropsAndCounts() {
        var producer = segment.producer(slot: 0)
        var published: UInt64 = 0
        while let writer = producer.reserveRequest(textBytes: 0) {
            producer.publish(writer, Self.facts)
            published += 1
        }
        #expect(segment.counters.treesPublished == published)
        #expect(segment.counters.spansPublished == published * 6)
        #expect(producer.treesLost == 1)
    }

    /// Any damage gives either nothing or a tree that a reader can take.
    @Test(arguments: 0..<500 as Range<UInt64>)
    func randomDamageNeverTraps(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var damaged = record()
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            damaged[Int.random(in: 8..<damaged.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        }
        if let tree = Self.tree(damaged) {
            #expect(!tree.isMalformed)
            #expect(tree.spans.count == 6)
        }
    }
}

@Suite struct ConnectionNameTests {
    @Test(
        arguments: [(2, 0, "w2-0"), (10, 1041, "w10-1041"), (.max, .max, "w4294967295-18446744073709551615")]
            as [(UInt32, UInt64, String)])
    func aWorkerAndANumber(worker: UInt32, number: UInt64, text: String) {
        let name = ConnectionName(worker: worker, number: number)
        let bytes = name.bytes
        #expect(String(decoding: bytes.indices.map { bytes[$0] }, as: UTF8.self) == text)
    }
}
