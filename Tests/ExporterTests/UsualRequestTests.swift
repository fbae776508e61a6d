import CShims
import ShmRing
import Testing

@testable import Exporter

/// Request records: the templates of the protobuf encoder say what the walk says, which JSON takes.
@Suite struct UsualRequestTests {
    /// The facts of the shape with that number: every combination of what `RequestTemplates` tells apart.
    private static func facts(shape: Int, _ random: inout SeededGenerator) -> lb_request_header {
        var facts = lb_request_header()
        facts.trace_id_high = random.next()
        facts.trace_id_low = random.next()
        facts.parent_span_id = shape & 1 == 0 ? 0 : random.next()
        facts.base_unix_ns = SampleTrees.baseUnixNs
        facts.root_span_id = random.next()
        facts.selection_span_id = random.next()
        facts.connection_span_id = random.next()
        facts.acquire_span_id = random.next()
        facts.request_span_id = random.next()
        facts.streaming_span_id = random.next()
        facts.connection_number = random.next() >> UInt64.random(in: 0...63, using: &random)
        facts.has_request_bytes = shape & 4 == 0 ? 0 : 1
        facts.body_type = UInt8(shape >> 3 & 3)
        facts.status = [200, 404, 503, 399][shape >> 5 & 3]
        facts.http_flavor = UInt8(shape >> 7 & 3)
        if shape & 512 != 0 { addLink(to: &facts, &random) }
        if shape & 1024 != 0 { facts.backend_flavor = UInt16(LB_FLAVOR_2) }
        facts.trace_flags = UInt8.random(in: 0...3, using: &random)
        addTimes(to: &facts, &random)
        addNumbers(to: &facts, &random)
        return facts
    }

    private static func addLink(to facts: inout lb_request_header, _ random: inout SeededGenerator) {
        facts.link_trace_id_high = random.next()
        facts.link_trace_id_low = random.next()
        facts.link_span_id = random.next()
    }

    /// Every shape that there is.
    private static let shapes = [0, 512, 1024, 1536].flatMap { $0..<($0 + 384) }

    private static func spanCount(_ shapes: [Int]) -> Int { shapes.reduce(0) { $0 + ($1 & 1024 == 0 ? 6 : 5) } }

    private static func addTimes(to facts: inout lb_request_header, _ random: inout SeededGenerator) {
        var times = (0..<6).map { _ in UInt32.random(in: 0...UInt32.max, using: &random) }
        times.sort()
        facts.selection_start_ns = times[0]
        facts.selection_end_ns = times[1]
        facts.connection_end_ns = times[2]
        facts.acquire_end_ns = times[2]
        facts.request_start_ns = times[2]
        facts.request_end_ns = times[3]
        facts.streaming_start_ns = times[4]
        facts.end_ns = times[5]
    }

    private static func addNumbers(to facts: inout lb_request_header, _ random: inout SeededGenerator) {
        func number() -> UInt32 {
            UInt32(truncatingIfNeeded: random.next() >> UInt64.random(in: 32...63, using: &random))
        }
        facts.request_bytes = number()
        facts.response_bytes = number()
        facts.body_bytes = number()
        facts.body_expected_bytes = number()
        facts.backend_index = number()
        facts.backend_count = number()
        facts.healthy_count = number()
        facts.idle_count = number()
        facts.active_count = number()
        facts.peer_port = number()
        facts.worker = number()
        facts.generation = number()
    }

    private static func publish(shape: Int, _ producer: inout RingProducer, _ random: inout SeededGenerator) {
        let texts = ["a", "b", "c", "d", "e", "f", "g"].map {
            String(repeating: $0, count: lengths.randomElement(using: &random) ?? 0)
        }
        publish(facts(shape: shape, &random), texts, hasUserAgent: shape & 2 != 0, &producer)
    }

    private static let lengths = [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 124, 125, 126, 127, 128, 200, 1024]

    private static func publish(
        _ facts: lb_request_header, _ texts: [String], hasUserAgent: Bool, _ producer: inout RingProducer
    ) {
        var facts = facts
        var texts = texts
        if !hasUserAgent { texts[3] = "" }
        facts.method_bytes = UInt16(texts[0].utf8.count)
        facts.url_bytes = UInt16(texts[1].utf8.count)
        facts.host_bytes = UInt16(texts[2].utf8.count)
        facts.user_agent_bytes = UInt16(texts[3].utf8.count)
        facts.peer_ip_bytes = UInt16(texts[4].utf8.count)
        facts.backend_bytes = UInt16(texts[5].utf8.count)
        facts.strategy_bytes = UInt16(texts[6].utf8.count)
        guard var writer = producer.reserveRequest(textBytes: texts.reduce(0) { $0 + $1.utf8.count }) else { return }
        for text in texts { writer.append(string: text) }
        producer.publish(writer, facts)
    }

    private static func plain(_ producer: inout RingProducer, userAgent: String = "curl/8", shape: Int = 128 + 512) {
        var random = SeededGenerator(seed: 7)
        publish(
            facts(shape: shape, &random),
            ["GET", "http://h.test/a", "h.test", userAgent, "192.0.2.7", "b.test:9002", "round_robin"],
            hasUserAgent: true, &producer)
    }

    /// Every shape, so that each template is made, and some again, so that they are used.
    @Test(arguments: [ExporterConfiguration.AttributeNaming.classic, .stable, .both])
    func everyShapeSaysInProtobufWhatItSaysInJSON(naming: ExporterConfiguration.AttributeNaming) throws {
        func write(_ producer: inout RingProducer) {
            var random = SeededGenerator(seed: 1)
            for shape in Self.shapes { Self.publish(shape: shape, &producer, &random) }
            SampleTrees.failover(&producer)
            for shape in Self.shapes where shape % 3 == 0 { Self.publish(shape: shape, &producer, &random) }
        }
        let protobuf = try DecodedRequest(
            protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, naming: naming, ringBytes: 4 << 20, write))
        let json = try DecodedRequest(
            json: SampleTrees.batch(OTLPJSONEncoder.self, naming: naming, ringBytes: 4 << 20, write))
        #expect(protobuf.spans.count == Self.spanCount(Self.shapes + Self.shapes.filter { $0 % 3 == 0 }) + 6)
        #expect(protobuf.spans.count { !$0.links.isEmpty } > 384)
        #expect(protobuf == json)
    }

    @Test func aTemplateIsFilled() throws {
        let batch = try SampleTrees.batch(OTLPProtobufEncoder.self) { Self.plain(&$0) }
        let spans = try DecodedRequest(protobuf: batch).spans
        #expect(spans[0]["http.user_agent"] == .string("curl/8"))
        #expect(spans[0]["http.url"] == .string("http://h.test/a"))
        #expect(spans[4]["http.url"] == .string("http://h.test/a"))
        #expect(spans[5].parentID == spans[0].id)
        #expect(spans[3].parentID == spans[2].id)
        #expect(spans.map(\.links.count) == [0, 0, 0, 0, 1, 0])
        #expect(spans[4].links[0].attributes == [.init(key: "connection.id", value: spans[2]["connection.id"]!)])
        #expect(spans[4].links[0].flags == 0x103)
    }

    @Test func aTemplateOfAnAttemptOverHTTP2IsFilled() throws {
        func write(_ producer: inout RingProducer) {
            for _ in 0..<2 { Self.plain(&producer, shape: 128 + 512 + 1024) }
        }
        let spans = try DecodedRequest(protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, write)).spans
        #expect(spans.count == 10)
        let attempt = spans[7]
        #expect(spans[5...].map(\.parentID) == ["", spans[5].id, spans[5].id, attempt.id, attempt.id])
        #expect(spans[5...].map(\.links.count) == [0, 0, 1, 0, 0])
        #expect(attempt["h2.retry_count"] == .int(0))
        #expect(attempt["http.url"] == .string("http://h.test/a"))
        #expect(attempt["http.response_content_length"] == spans[5]["http.response_content_length"])
        #expect(spans[9]["http.body.type"] == .string("h2_streamed"))
    }

    /// A writer that is not ours may put anything into a text; what goes out is UTF-8 and the same in both.
    @Test func aTextThatIsNotASCIIGoesTheLongWay() throws {
        for text in ["Grüße/1.0", "é", "abcdefghijklmnopé"] {
            func write(_ producer: inout RingProducer) {
                Self.plain(&producer)
                Self.plain(&producer, userAgent: text)
                Self.plain(&producer)
            }
            let protobuf = try DecodedRequest(protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, write))
            #expect(try protobuf == DecodedRequest(json: SampleTrees.batch(OTLPJSONEncoder.self, write)))
            #expect(protobuf.spans.count == 18)
            #expect(protobuf.spans[6]["http.user_agent"] == .string(text))
        }
    }

    /// Encoders that have seen a good record of each shape take damaged ones between good ones.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func mutatedRecordsNeverBreakTheOutput(seed: UInt64) throws {
        let valid = try SampleTrees.record { Self.plain(&$0) }
        var random = SeededGenerator(seed: seed)
        var walk = TreeWalk(naming: .classic)
        var protobuf = OTLPProtobufEncoder(SampleTrees.resource)
        var json = OTLPJSONEncoder(SampleTrees.resource)
        var kept = 0
        for round in 0..<1000 {
            var record = valid
            for _ in 0..<(round % 2 == 0 ? 0 : Int.random(in: 1...4, using: &random)) {
                record[Int.random(in: 8..<record.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            let mark = protobuf.byteCount
            let jsonMark = json.byteCount
            let spans = unsafe Self.add(record.span.bytes, &walk, &protobuf)
            let again = unsafe walk.walk(record.span.bytes, into: &json)
            #expect(spans == again)
            if spans == nil {
                #expect(protobuf.byteCount == mark)
                json.rollBack(to: jsonMark)
            } else {
                kept += 1
            }
        }
        let one = try DecodedRequest(protobuf: protobuf.finish(replacement: ByteStorage()).bytes)
        let other = try DecodedRequest(json: json.finish(replacement: ByteStorage()).bytes)
        #expect(one == other, "seed \(seed)")
        #expect(one.spans.count == kept * 6)
        #expect(kept > 520)
    }

    /// As `SpanBatcher` does it.
    private static func add(_ record: RawSpan, _ walk: inout TreeWalk, _ format: inout OTLPProtobufEncoder) -> Int? {
        if let spans = format.addUsual(record, &walk) { return spans }
        let mark = format.byteCount
        let spans = walk.walk(record, into: &format)
        if spans == nil { format.rollBack(to: mark) }
        return spans
    }

    /// Two spans of one id must not be taken for one when a template is made of them.
    @Test func aTemplateIsNotMadeOfARecordWhoseIDsMeet() throws {
        func write(_ producer: inout RingProducer) {
            var random = SeededGenerator(seed: 3)
            var facts = Self.facts(shape: 128, &random)
            facts.connection_span_id = facts.root_span_id
            let texts = ["GET", "http://h.test/", "h.test", "", "192.0.2.7", "b.test:9002", "round_robin"]
            Self.publish(facts, texts, hasUserAgent: false, &producer)
            facts.connection_span_id = 77
            Self.publish(facts, texts, hasUserAgent: false, &producer)
        }
        let spans = try DecodedRequest(protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, write)).spans
        #expect(spans.count == 12)
        #expect(spans[9].parentID == spans[8].id)
    }

    @Test func theConsoleShowsIt() throws {
        let record = try SampleTrees.record { Self.plain(&$0) }
        var walk = TreeWalk(naming: .classic)
        let tree = try #require(unsafe TraceTree(record: record.span.bytes, &walk))
        #expect(tree.nodes.count == 6)
        #expect(tree.nodes[0].children.sorted() == [1, 2, 4, 5])
        #expect(tree.nodes[2].children == [3])
    }
}
