import CShims
import Testing

@testable import ShmRing

/// Records that contradict themselves.
@Suite struct TreeReaderTests {
    /// Byte offsets in `record()`.
    private enum At {
        static let kind = 4
        static let spanCount = 40
        static let traceStateBytes = 44
        static let root = 56
        static let rootEnd = root + 16
        static let rootBody = root + 24
        static let rootAttributes = root + 28
        static let rootEvents = root + 30
        static let rootParent = root + 35
        static let rootLinks = root + 36
        static let string = root + 40
        static let strings = string + 16
        static let event = strings + 24
        static let eventBody = event + 8
        static let eventAttributes = event + 12
        static let link = event + 24
        static let linkBody = link + 24
        static let linkAttributes = link + 28
        static let child = link + 32 + 16
        static let childParent = child + 35
    }

    /// Trace state of 8 bytes; a root with one text, two texts, an event and a link with an attribute each; a child.
    private func record() -> [UInt8] {
        let segment = SpanSegment.small()
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        var writer = producer.reserve(bytesMax: 1024)!
        writer.begin(
            traceID: (1, 2), parentSpanID: 3, traceFlags: 1, baseUnixNs: 4, traceState: Array("a=1,b=22".utf8).span)
        writer.beginSpan(.proxyRequest, kind: .server, id: 5, parent: nil, startOffsetNs: 1, endOffsetNs: 9)
        writer.attribute(.httpMethod, "GET" as StaticString)
        writer.attribute(.dnsAnswers, ["a", "bcde"])
        writer.beginEvent(.retryTriggered, offsetNs: 6)
        writer.attribute(.retryAttempt, 1)
        writer.link(
            to: LinkTarget(traceIDHigh: 7, traceIDLow: 4, spanID: 9), connection: ConnectionName(worker: 0, number: 1))
        writer.beginSpan(.tcpConnect, kind: .internal, id: 6, parent: 0, startOffsetNs: 2, endOffsetNs: 8)
        writer.attribute(.failures, 7)
        producer.publish(writer)
        return consumer.next(slot: 0) { unsafe $0.withUnsafeBytes { unsafe Array($0) } }!.result
    }

    /// The record with `bytes` written over it at `offset`.
    private func patched(_ offset: Int, _ bytes: UInt8...) -> [UInt8] {
        var record = record()
        record.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        return record
    }

    @Test func theRecordIsLaidOutAsThisTestBelieves() {
        let bytes = record()
        #expect(bytes.count == At.child + 48)
        #expect(bytes[At.spanCount] == 2)
        #expect(bytes[At.traceStateBytes] == 8)
        #expect(bytes[At.rootBody] == UInt8(At.child - At.string))
        #expect(bytes[At.rootAttributes] == 2)
        #expect(bytes[At.rootEvents] == 1)
        #expect(bytes[At.rootParent] == 0xFF)
        #expect(bytes[At.eventBody] == 8)
        #expect(bytes[At.eventAttributes] == 1)
        #expect(bytes[At.rootLinks] == 1)
        #expect(bytes[At.linkBody] == 16)
        #expect(bytes[At.linkAttributes] == 1)
        #expect(bytes[At.childParent] == 0)
        let tree = TreeReading(bytes)
        #expect(tree?.isMalformed == false)
        #expect(tree?.spans[0].attributes.map(\.value) == [.text("GET"), .texts(["a", "bcde"])])
        #expect(tree?.spans[0].events[0].attributes.map(\.value) == [.int(1)])
        #expect(tree?.spans[0].links.map(\.target.spanID) == [9])
        #expect(tree?.spans[0].links[0].attributes.map(\.value) == [.text("w0-1")])
        #expect(tree?.spans[1].attributes.map(\.value) == [.int(7)])
    }

    @Test func aRecordThatIsNoTreeIsRefused() {
        #expect(TreeReading([]) == nil)
        #expect(TreeReading(Array(record().prefix(47))) == nil)
        #expect(TreeReading(patched(At.kind, 2)) == nil)
        #expect(TreeReading(patched(At.spanCount, 0, 0)) == nil)
        #expect(TreeReading(patched(At.traceStateBytes, 0, 1)) == nil)
        #expect(TreeReading(patched(At.traceStateBytes, 0xFF, 0xFF, 0xFF, 0xFF)) == nil)
        #expect(TreeReading(patched(At.traceStateBytes, UInt8(At.child + 1))) == nil)
    }

    /// Where the damage is, the bytes of it, and how many spans are still given.
    private static let damages: [(Int, [UInt8], Int)] = [
        (At.spanCount, [3], 2), (At.spanCount, [0xFF, 0xFF], 2), (At.rootBody, [0xFF], 0),
        (At.rootBody, [0xFF, 0xFF, 0xFF, 0xFF], 0),
        (At.rootBody, [4], 0), (At.rootEnd, [0], 0), (At.rootParent, [0], 0), (At.rootParent, [1], 0),
        (At.childParent, [1], 1),
        (At.childParent, [0xFF], 1), (At.childParent, [0xFE], 1), (At.rootAttributes, [200], 1),
        (At.rootEvents, [2], 1), (At.rootEvents, [0xFF, 0xFF], 1), (At.string + 2, [0], 1),
        (At.string + 2, [6], 1),
        (At.string + 4, [0xFF], 1), (At.string + 4, [0xFF, 0xFF, 0xFF, 0xFF], 1), (At.strings + 4, [0xF0], 1),
        (At.eventBody, [64], 1), (At.eventBody, [4], 1), (At.eventBody, [0xFF, 0xFF, 0xFF, 0xFF], 1),
        (At.eventAttributes, [2], 1),
        (At.rootLinks, [2], 1), (At.rootLinks, [0xFF, 0xFF], 1), (At.linkBody, [24], 1), (At.linkBody, [4], 1),
        (At.linkBody, [0xFF, 0xFF, 0xFF, 0xFF], 1), (At.linkAttributes, [2], 1),
    ]

    @Test(arguments: damages)
    func damageEndsTheTreeThereAndIsSaid(offset: Int, bytes: [UInt8], spans: Int) {
        var record = record()
        record.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        let tree = TreeReading(record)
        #expect(tree?.isMalformed == true)
        #expect(tree?.spans.count == spans)
    }

    @Test func aRecordCutAnywhereIsRefusedOrSaidToBeMalformed() {
        let whole = record()
        for count in 0..<whole.count {
            let tree = TreeReading(Array(whole.prefix(count)))
            #expect(tree == nil || tree?.isMalformed == true, "\(count) bytes")
        }
    }

    @Test func aTextInAListMayNotReachOverTheList() {
        #expect(TreeReading(patched(At.strings + 8, 0xFF))?.value(.dnsAnswers) == .texts([]))
        #expect(TreeReading(patched(At.strings + 8, 13))?.value(.dnsAnswers) == .texts([]))
        #expect(TreeReading(patched(At.strings + 8, 9))?.isMalformed == false)
        #expect(TreeReading(patched(At.strings + 16, 5))?.value(.dnsAnswers) == .texts(["a"]))
    }

    @Test(arguments: 0..<500 as Range<UInt64>)
    func randomDamageNeverTraps(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var bytes = record()
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        }
        let tree = TreeReading(bytes)
        #expect(tree == nil || tree!.spans.count <= bytes.count / 40)
    }
}
