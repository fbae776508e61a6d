import Testing

@testable import ShmRing

/// Trees go through a real ring: what `TreeReader` finds is what was written.
@Suite struct TreeWriterTests {
    private let segment = SpanSegment.small()

    /// Begins a tree, lets `body` go on, and reads what came through the ring; nil when it was dropped.
    private func written(
        bytesMax: Int = 4096, state: String = "", _ body: (inout TreeWriter) -> Void
    ) -> TreeReading? {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        var writer = producer.reserve(bytesMax: bytesMax)!
        let state = Array(state.utf8)
        writer.begin(
            traceID: (0x0102_0304_0506_0708, 0x090A_0B0C_0D0E_0F10), parentSpanID: 11, traceFlags: 3,
            baseUnixNs: 1_700_000_000_000_000_000, traceState: state.span)
        body(&writer)
        producer.publish(writer)
        guard let (tree, end) = consumer.next(slot: 0, { TreeReading($0) }) else { return nil }
        consumer.release(through: end)
        return tree
    }

    /// One span with the attributes that `body` writes.
    private func attributes(_ body: (inout TreeWriter) -> Void) -> [TreeReading.Value] {
        let tree = written {
            Self.root(&$0)
            body(&$0)
        }
        #expect(tree?.isMalformed == false)
        return tree?.spans.first?.attributes.map(\.value) ?? []
    }

    private static func root(_ writer: inout TreeWriter) {
        writer.beginSpan(.proxyRequest, kind: .server, id: 5, parent: nil, startOffsetNs: 0, endOffsetNs: 9)
    }

    @Test func theTreesOwnFactsArrive() {
        for state in ["", "a", "vendor=1", "vendor=12", "vendor=1234567"] {
            let tree = written(state: state, Self.root)
            #expect(tree?.traceIDHigh == 0x0102_0304_0506_0708)
            #expect(tree?.traceIDLow == 0x090A_0B0C_0D0E_0F10)
            #expect(tree?.parentSpanID == 11)
            #expect(tree?.traceFlags == 3)
            #expect(tree?.baseUnixNs == 1_700_000_000_000_000_000)
            #expect(tree?.traceState == state)
            #expect(tree?.spans.count == 1)
        }
    }

    @Test func spansKeepTheirPlaceAndTheirFacts() {
        let tree = written {
            let root = $0.beginSpan(
                .proxyRequest, kind: .server, id: 5, parent: nil, startOffsetNs: 1, endOffsetNs: 100, status: .error)
            let child = $0.beginSpan(
                .backendConnection, kind: .internal, id: 6, parent: root, startOffsetNs: 2, endOffsetNs: 50, status: .ok
            )
            $0.beginSpan(.tcpConnect, kind: .client, id: 7, parent: child, startOffsetNs: 3, endOffsetNs: 3)
        }
        #expect(
            tree?.spans == [
                .init(id: 5, name: 1, kind: 2, status: 2, parent: nil, startOffsetNs: 1, endOffsetNs: 100),
                .init(id: 6, name: 3, kind: 1, status: 1, parent: 0, startOffsetNs: 2, endOffsetNs: 50),
                .init(id: 7, name: 6, kind: 3, status: 0, parent: 1, startOffsetNs: 3, endOffsetNs: 3),
            ])
    }

    @Test func aSpanNeverEndsBeforeItStarts() {
        let tree = written {
            $0.beginSpan(.proxyRequest, kind: .server, id: 5, parent: nil, startOffsetNs: 9, endOffsetNs: 2)
        }
        #expect(tree?.spans.first?.endOffsetNs == 9)
    }

    @Test func everyTypeOfValueArrives() {
        let values = attributes {
            $0.attribute(.dnsCached, true)
            $0.attribute(.dnsCached, false)
            for number in [0, -1, Int(Int32.max), Int(Int32.min), Int(Int32.max) + 1, Int.min, Int.max] {
                $0.attribute(.httpStatusCode, number)
            }
            $0.attribute(.poolOutcome, "reused" as StaticString)
            $0.attribute(.connectionID, "w2-1041" as String)
            $0.attribute(.dnsAnswers, ["127.0.0.1", "", "::1", "x"])
            $0.attribute(.dnsAnswers, [String]())
        }
        #expect(values.prefix(2) == [.bool(true), .bool(false)])
        #expect(values.dropFirst(2).prefix(4) == [.int(0), .int(-1), .int(2_147_483_647), .int(-2_147_483_648)])
        #expect(values.dropFirst(6).prefix(3) == [.int(2_147_483_648), .int(.min), .int(.max)])
        #expect(values.dropFirst(9).prefix(2) == [.text("reused"), .text("w2-1041")])
        #expect(values.dropFirst(11) == [.texts(["127.0.0.1", "", "::1", "x"]), .texts([])])
    }

    @Test func textsOfEveryLengthArrive() {
        for count in 0...17 {
            let text = String(repeating: "x", count: count)
            let values = attributes {
                $0.attribute(.httpURL, text: text.utf8.span)
                $0.attribute(.httpURL, [text, text])
                $0.attribute(.failures, count)
            }
            #expect(values == [.text(text), .texts([text, text]), .int(Int64(count))])
        }
    }

    @Test func foreignTextIsCutAndEscaped() {
        let long = String(repeating: "é", count: 600)
        let values = attributes {
            $0.attribute(.httpURL, text: long.utf8.span)
            $0.attribute(.httpURL, text: ([0x41, 0xFF] as [UInt8]).span)
            $0.attribute(.httpURL, text: [UInt8](repeating: 0x41, count: 1025).span)
            $0.attribute(.httpURL, text: [UInt8](repeating: 0x41, count: 1024).span)
        }
        #expect(values[0] == .text(String(long.prefix(512))))
        #expect(values[1] == .text("A%FF"))
        #expect(values[2] == .text(String(repeating: "A", count: 1024)))
        #expect(values[2] == values[3])
        #expect(segment.counters.valuesCut == 2)
    }

    @Test func eventsStandBehindTheirSpansAttributes() {
        let tree = written {
            Self.root(&$0)
            $0.attribute(.failures, 1)
            $0.beginEvent(.retryTriggered, offsetNs: 4)
            $0.attribute(.retryReason, "connect_failed" as StaticString)
            $0.attribute(.retryAttempt, 2)
            $0.beginEvent(.retryDenied, offsetNs: 5)
            $0.beginEvent(.backendMarkedUnhealthy, offsetNs: 6)
            $0.attribute(.failures, 3)
            $0.beginSpan(.tcpConnect, kind: .internal, id: 6, parent: 0, startOffsetNs: 0, endOffsetNs: 1)
            $0.attribute(.failures, 4)
        }
        #expect(tree?.isMalformed == false)
        #expect(tree?.spans[0].attributes.map(\.value) == [.int(1)])
        #expect(tree?.spans[0].events.map(\.name) == [1, 2, 3])
        #expect(tree?.spans[0].events.map(\.offsetNs) == [4, 5, 6])
        #expect(
            tree?.spans[0].events.map { $0.attributes.map(\.value) } == [
                [.text("connect_failed"), .int(2)], [], [.int(3)],
            ])
        #expect(tree?.spans[1].attributes.map(\.value) == [.int(4)])
        #expect(tree?.spans[1].events == [])
    }

    // MARK: Limits

    @Test func attributesThatDoNotFitAreLeftOutAndCounted() {
        let tree = written(bytesMax: 128) {
            Self.root(&$0)
            $0.attribute(.httpURL, "0123456789012345678901234567890123456789" as String)
            $0.attribute(.failures, 1)
            $0.attribute(.httpURL, "0123456789012345678901234567890" as StaticString)
            $0.attribute(.httpURL, ["0123456789012345678901234567890"])
            $0.attribute(.failures, Int.max)
            $0.attribute(.failures, 2)
            $0.attribute(.failures, Int.min)
            $0.attribute(.failures, 3)
            $0.attribute(.failures, 4)
        }
        #expect(tree?.isMalformed == false)
        #expect(tree?.spans[0].attributes.map(\.value) == [.int(1), .int(.max), .int(2), .int(3)])
        #expect(segment.counters.valuesCut == 5)
        #expect(segment.counters.treesPublished == 1)
    }

    @Test(arguments: [40, 48, 80])
    func aTreeWithoutRoomForItsSpansIsDropped(bytesMax: Int) {
        #expect(written(bytesMax: bytesMax, Self.root) == nil)
        #expect(segment.counters.treesDroppedTooLarge == 1)
        #expect(written(bytesMax: 88, Self.root) != nil)
    }

    @Test func aTreeWithoutRoomForAnEventIsDropped() {
        let tree = written(bytesMax: 96) {
            Self.root(&$0)
            $0.beginEvent(.retryDenied, offsetNs: 1)
        }
        #expect(tree == nil)
    }

    @Test func anythingAfterAFailureIsHarmless() {
        let tree = written(bytesMax: 88) {
            Self.root(&$0)
            Self.root(&$0)
            $0.attribute(.failures, 1)
            $0.beginEvent(.retryDenied, offsetNs: 1)
            $0.attribute(.failures, 1)
            Self.root(&$0)
        }
        #expect(tree == nil)
    }

    @Test func aTraceStateThatDoesNotFitIsLeftOutAndCounted() {
        let tree = written(bytesMax: 96, state: String(repeating: "s", count: 49), Self.root)
        #expect(tree?.traceState == "")
        #expect(segment.counters.valuesCut == 1)
    }

    @Test func a256thSpanFailsTheTree() {
        let limit = written(bytesMax: 65536) {
            for index in 0..<255 { Self.child(&$0, of: index - 1) }
        }
        #expect(limit?.spans.count == 255)
        #expect(limit?.spans.last?.parent == 253)
        let beyond = written(bytesMax: 65536) {
            for index in 0..<300 { Self.child(&$0, of: min(index, 255) - 1) }
        }
        #expect(beyond == nil)
        #expect(segment.counters.treesDroppedTooLarge == 1)
    }

    private static func child(_ writer: inout TreeWriter, of parent: Int) {
        writer.beginSpan(
            .poolAcquire, kind: .internal, id: 1, parent: parent < 0 ? nil : parent, startOffsetNs: 0, endOffsetNs: 0)
    }
}
