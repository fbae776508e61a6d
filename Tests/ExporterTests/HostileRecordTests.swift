import ShmRing
import Testing

@testable import Exporter

/// Records that no writer of ours would write.
@Suite struct HostileRecordTests {
    /// Walks a record into both encoders.
    private struct Bench: ~Copyable {
        var walk = TreeWalk(naming: .both)
        var protobuf = OTLPProtobufEncoder(SampleTrees.resource)
        var json = OTLPJSONEncoder(SampleTrees.resource)

        /// - Returns: How many spans it held; nil: malformed.
        mutating func add(_ record: [UInt8]) -> Int? {
            let protobufMark = protobuf.byteCount
            let jsonMark = json.byteCount
            let spans = unsafe walk.walk(record.span.bytes, into: &protobuf)
            let again = unsafe walk.walk(record.span.bytes, into: &json)
            #expect(spans == again)
            if spans == nil {
                protobuf.rollBack(to: protobufMark)
                json.rollBack(to: jsonMark)
            }
            return spans
        }

        mutating func finish() throws -> (protobuf: DecodedRequest, json: DecodedRequest) {
            let one = protobuf.finish(replacement: ByteStorage()).bytes
            let other = json.finish(replacement: ByteStorage()).bytes
            return (try DecodedRequest(protobuf: one), try DecodedRequest(json: other))
        }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func mutatedRecordsNeverBreakTheOutput(seed: UInt64) throws {
        let valid = try SampleTrees.record(SampleTrees.failover)
        var random = SeededGenerator(seed: seed)
        var kept = 0
        for _ in 0..<200 {
            var bench = Bench()
            var record = valid
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                record[Int.random(in: 8..<record.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            let before = bench.add(valid)
            let spans = bench.add(record)
            let after = bench.add(valid)
            if spans != nil { kept += 1 }
            let (protobuf, json) = try bench.finish()
            #expect(protobuf == json, "seed \(seed)")
            #expect(protobuf.spans.count == (before ?? 0) + (spans ?? 0) + (after ?? 0), "seed \(seed)")
            for span in protobuf.spans { #expect(span.startUnixNs <= span.endUnixNs) }
        }
        #expect(kept > 20, "seed \(seed): the mutations broke nearly every record, which tests little")
        #expect(kept < 200)
    }

    @Test func everyCutOfARecordIsMalformed() throws {
        let valid = try SampleTrees.record(SampleTrees.failover)
        var bench = Bench()
        for length in stride(from: 0, to: valid.count, by: 8) {
            #expect(bench.add(Array(valid.prefix(length))) == nil)
        }
        #expect(try bench.finish().protobuf.spans.isEmpty)
    }

    @Test func aMalformedRecordLeavesNoTrace() throws {
        let valid = try SampleTrees.record(SampleTrees.failover)
        var bench = Bench()
        for record in [Array(valid.dropLast(8)), valid, Array(valid.dropLast(16)), valid] { _ = bench.add(record) }
        let (protobuf, json) = try bench.finish()
        #expect(protobuf == json)
        #expect(protobuf.spans.count == 12)
    }

    @Test func invalidUTF8IsReplaced() throws {
        var record = try SampleTrees.record { producer in
            SampleTrees.single(&producer) { tree in
                tree.attribute(.httpUserAgent, "abcdefgh12345678XYZ")
                tree.attribute(.dnsAnswers, ["qrst"])
                tree.attribute(.httpMethod, "GET" as StaticString)
            }
        }
        for (index, byte) in record.enumerated() {
            if byte == UInt8(ascii: "h") || byte == UInt8(ascii: "Y") || byte == UInt8(ascii: "r") {
                record[index] = 0xFF
            }
        }
        var bench = Bench()
        #expect(bench.add(record) == 1)
        let (protobuf, json) = try bench.finish()
        #expect(protobuf == json)
        #expect(protobuf.spans[0]["http.user_agent"] == .string("abcdefg\u{FFFD}12345678X\u{FFFD}Z"))
        #expect(protobuf.spans[0]["dns.answers"] == .array([.string("q\u{FFFD}st")]))
        #expect(protobuf.spans[0]["http.method"] == .string("GET"))
    }

    @Test func unknownNumbersAreLeftOutAndCounted() throws {
        let key = UInt16(9999)
        var record = try SampleTrees.record { producer in
            SampleTrees.single(&producer) { tree in
                tree.attribute(.lbWorker, 7)
                tree.attribute(.lbGeneration, 8)
            }
        }
        // The first attribute's key stands behind the tree's header (48) and the span's (40).
        record[88] = UInt8(truncatingIfNeeded: key)
        record[89] = UInt8(truncatingIfNeeded: key >> 8)
        var walk = TreeWalk(naming: .classic)
        var encoder = OTLPProtobufEncoder(SampleTrees.resource)
        #expect(unsafe walk.walk(record.span.bytes, into: &encoder) == 1)
        #expect(walk.unknownCount == 1)
        let request = try DecodedRequest(protobuf: encoder.finish(replacement: ByteStorage()).bytes)
        #expect(request.spans[0].attributes == [.init(key: "lb.generation", value: .int(8))])
    }

    @Test func aLinkToNothingIsLeftOutAndCounted() throws {
        for target in [
            LinkTarget(traceIDHigh: 0, traceIDLow: 0, spanID: 1), .init(traceIDHigh: 1, traceIDLow: 1, spanID: 0),
        ] {
            let record = try SampleTrees.record { producer in
                SampleTrees.single(&producer) { tree in
                    tree.link(to: target, connection: ConnectionName(worker: 1, number: 2))
                    tree.link(to: SampleTrees.linked, connection: ConnectionName(worker: 1, number: 3))
                }
            }
            var bench = Bench()
            #expect(bench.add(record) == 1)
            let unknown = bench.walk.unknownCount
            #expect(unknown == 2, "once for each encoder")
            let (protobuf, json) = try bench.finish()
            #expect(protobuf == json)
            #expect(protobuf.spans[0].links.map(\.spanID) == ["00000000000000c3"])
            #expect(protobuf.spans[0].attributes.isEmpty)
        }
    }

    @Test func childrenOfASpanLeftOutGoToItsParent() throws {
        var record = try SampleTrees.record(SampleTrees.failover)
        var walk = TreeWalk(naming: .classic)
        // backend_connection's header starts with its id; 32 bytes on stands its name.
        let id: [UInt8] = [0xa3, 0, 0, 0, 0, 0, 0, 0]
        let place = try #require(record.indices.first { record[$0...].starts(with: id) })
        record[place + 32] = 200
        var encoder = OTLPProtobufEncoder(SampleTrees.resource)
        #expect(unsafe walk.walk(record.span.bytes, into: &encoder) == 5)
        let request = try DecodedRequest(protobuf: encoder.finish(replacement: ByteStorage()).bytes)
        #expect(request.spans.first { $0.name == "tcp_connect" }?.parentID == "00000000000000a1")
    }

    @Test func timesStayInOrderAtTheEndOfTime() throws {
        let record = try SampleTrees.record { producer in
            guard var tree = producer.reserve(bytesMax: 4096) else { return }
            tree.begin(
                traceID: (1, 1), parentSpanID: 0, traceFlags: 0, baseUnixNs: .max - 5, traceState: "".utf8.span)
            tree.beginSpan(.proxyRequest, kind: .server, id: 1, parent: nil, startOffsetNs: 3, endOffsetNs: 100)
            producer.publish(tree)
        }
        var bench = Bench()
        _ = bench.add(record)
        let span = try bench.finish().protobuf.spans[0]
        #expect(span.startUnixNs == UInt64.max - 2)
        #expect(span.endUnixNs == UInt64.max)
    }

    @Test func aTreeWithTwoRootsIsLeftOutOfTheBatch() throws {
        let batch = try SampleTrees.batch(OTLPProtobufEncoder.self) { producer in
            guard var tree = producer.reserve(bytesMax: 4096) else { return }
            tree.begin(traceID: (1, 1), parentSpanID: 0, traceFlags: 0, baseUnixNs: 1, traceState: "".utf8.span)
            for id in [1, 2] as [UInt64] {
                tree.beginSpan(.proxyRequest, kind: .server, id: id, parent: nil, startOffsetNs: 0, endOffsetNs: 1)
            }
            producer.publish(tree)
            SampleTrees.failover(&producer)
        }
        #expect(try DecodedRequest(protobuf: batch).spans.count == 6)
    }

    @Test func malformedRecordsGiveTheirSpaceBack() throws {
        var batcher = SpanBatcher<OTLPProtobufEncoder>(
            consumer: try SampleTrees.consumer { producer in
                guard var tree = producer.reserve(bytesMax: 4096) else { return }
                // All zero: the invalid trace id.
                tree.begin(traceID: (0, 0), parentSpanID: 0, traceFlags: 0, baseUnixNs: 1, traceState: "".utf8.span)
                tree.beginSpan(.proxyRequest, kind: .server, id: 1, parent: nil, startOffsetNs: 0, endOffsetNs: 1)
                producer.publish(tree)
            }, resource: SampleTrees.resource, naming: .classic, limits: BatchState.Limits())
        let hasRead = batcher.fill(nowNs: 0)
        #expect(hasRead)
        #expect(batcher.malformedCount == 1)
        #expect(batcher.holdsOnlyWaste == true)
        let closed = batcher.close(nowNs: 0)
        #expect(closed.body == nil)
        #expect(closed.marks[0] != nil)
        #expect(batcher.holdsOnlyWaste == false)
    }
}
