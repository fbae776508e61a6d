import ShmRing
import Testing

@testable import Exporter

@Suite struct OTLPEncoderTests {
    private typealias Value = DecodedRequest.Value

    private func failover(_ naming: ExporterConfiguration.AttributeNaming = .classic) throws -> DecodedRequest {
        try DecodedRequest(
            protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, naming: naming, SampleTrees.failover))
    }

    @Test func resourceAndScopeStandOnce() throws {
        let request = try failover()
        #expect(
            request.resource == [
                .init(key: "service.name", value: .string("shop \"A\"")), .init(key: "process.pid", value: .int(4711)),
            ])
        #expect(request.scopeName == "load_balancer")
        #expect(request.scopeVersion == "0.1.0")
    }

    @Test func identityTimesAndFlagsArriveAsRecorded() throws {
        let spans = try failover().spans
        #expect(spans.map(\.name).prefix(3) == ["proxy_request", "backend_selection", "backend_connection"])
        #expect(spans.allSatisfy { $0.traceID == "4bf92f3577b34da6a3ce929d0e0e4736" })
        #expect(spans.allSatisfy { $0.traceState == "vendor=opaque,other=1" })
        #expect(spans.map(\.id).prefix(2) == ["00000000000000a1", "00000000000000a2"])
        #expect(spans[0].parentID == "00f067aa0ba902b7")
        #expect(spans[4].parentID == "00000000000000a3")
        #expect(spans[0].flags == 0x303)
        #expect(spans.dropFirst().allSatisfy { $0.flags == 0x103 })
        #expect(spans.map(\.kind) == [2, 1, 1, 1, 1, 3])
        #expect(spans[1].startUnixNs == SampleTrees.baseUnixNs + 11_000)
        #expect(spans[1].endUnixNs == SampleTrees.baseUnixNs + 14_000)
    }

    @Test func everyTypeOfValueArrives() throws {
        let spans = try failover().spans
        #expect(spans[0]["http.user_agent"] == .string("Grüße/1.0"))
        #expect(spans[0]["http.response_content_length"] == .int(5_000_000_000))
        #expect(spans[1]["lb.healthy_count"] == .int(-1))
        #expect(spans[2]["connection.from_pool"] == .bool(false))
        #expect(spans[3]["dns.cached"] == .bool(true))
        #expect(spans[3]["dns.answers"] == .array([.string("10.0.0.1"), .string("10.0.0.2")]))
    }

    @Test func statusMessageIsTheStatusAndNoAttribute() throws {
        let spans = try failover().spans
        #expect(spans[2].statusCode == 2)
        #expect(spans[2].statusMessage == "connection refused")
        #expect(spans[2]["status.message"] == nil)
        #expect(spans[4].statusCode == 2)
        #expect(spans[4].statusMessage == "")
        #expect(spans[0].statusCode == 0)
    }

    @Test func eventsKeepTheirTimeAndAttributes() throws {
        let spans = try failover().spans
        #expect(spans[0].events.count == 1)
        #expect(spans[0].events[0].name == "retry_triggered")
        #expect(spans[0].events[0].unixNs == SampleTrees.baseUnixNs + 700_000)
        #expect(spans[0].events[0].attributes.last == .init(key: "retry.attempt", value: .int(1)))
        #expect(spans[4].events.map(\.name) == ["backend_marked_unhealthy"])
    }

    @Test func aLinkNamesItsSpanAndConnection() throws {
        let spans = try failover().spans
        #expect(spans.map(\.links.count) == [0, 0, 0, 0, 0, 1])
        let link = spans[5].links[0]
        #expect(link.traceID == "00000000000000c100000000000000c2")
        #expect(link.spanID == "00000000000000c3")
        #expect(link.flags == 0x103)
        #expect(link.attributes == [.init(key: "connection.id", value: .string("w2-1041"))])
    }

    @Test(arguments: [ExporterConfiguration.AttributeNaming.classic, .stable, .both])
    func bothEncodingsSayTheSame(naming: ExporterConfiguration.AttributeNaming) throws {
        let json = try SampleTrees.batch(OTLPJSONEncoder.self, naming: naming, SampleTrees.failover)
        #expect(try DecodedRequest(json: json) == failover(naming))
    }

    @Test func batchWithManyTreesHoldsThemInOrder() throws {
        func write(_ producer: inout RingProducer) {
            for number in 0..<300 {
                SampleTrees.single(&producer) { $0.attribute(.httpStatusCode, number) }
            }
        }
        let protobuf = try DecodedRequest(protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, write))
        #expect(protobuf.spans.map { $0["http.status_code"] } == (0..<300).map { Value.int($0) })
        #expect(try DecodedRequest(json: SampleTrees.batch(OTLPJSONEncoder.self, write)) == protobuf)
    }

    @Test func textsOfEveryLengthArriveWhole() throws {
        let texts = (0...300).map { String(repeating: "x", count: $0) + ($0 % 2 == 0 ? "" : "é\"\\\n\u{1F600}") }
        func write(_ producer: inout RingProducer) {
            for text in texts { SampleTrees.single(&producer) { $0.attribute(.httpUserAgent, text) } }
        }
        let protobuf = try DecodedRequest(protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, write))
        #expect(protobuf.spans.map { $0["http.user_agent"] } == texts.map { Value.string($0) })
        #expect(try DecodedRequest(json: SampleTrees.batch(OTLPJSONEncoder.self, write)) == protobuf)
    }

    @Test func numbersAtTheirLimitsArriveWhole() throws {
        let numbers = [0, 1, -1, 127, 128, Int(Int32.max), Int(Int32.max) + 1, Int.max, Int.min]
        func write(_ producer: inout RingProducer) {
            for number in numbers { SampleTrees.single(&producer) { $0.attribute(.httpStatusCode, number) } }
        }
        let protobuf = try DecodedRequest(protobuf: SampleTrees.batch(OTLPProtobufEncoder.self, write))
        #expect(protobuf.spans.map { $0["http.status_code"] } == numbers.map { Value.int(Int64($0)) })
        #expect(try DecodedRequest(json: SampleTrees.batch(OTLPJSONEncoder.self, write)) == protobuf)
    }

    @Test func encoderStartsAfreshAfterEachBatch() throws {
        var batcher = SpanBatcher<OTLPJSONEncoder>(
            consumer: try SampleTrees.consumer { producer in
                for _ in 0..<2 { SampleTrees.failover(&producer) }
            }, resource: SampleTrees.resource, naming: .classic, limits: BatchState.Limits(bytesMax: 1))
        for _ in 0..<2 {
            _ = batcher.fill(nowNs: 0)
            let closed = batcher.close(nowNs: 0)
            #expect(closed.trees == 1)
            #expect(try DecodedRequest(json: closed.body?.bytes ?? []) == failover())
            if let body = closed.body { batcher.reuse(body.storage) }
        }
        #expect(batcher.areRingsEmpty == true)
    }
}
