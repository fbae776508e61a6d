import CShims
import Testing

@testable import ShmRing

/// What a broken process leaves in a ring costs trees, and nothing else: no trap, no read outside, no
/// endless loop, and the ring works again.
@Suite struct DamagedRingTests {
    private let segment = SpanSegment.small()
    private let start: UInt64 = 4096

    init() { segment.startCounts(at: start) }

    /// Reads and publishes until a tree comes through, which must not take more than a few rounds.
    private func expectRecovery(_ comment: String) {
        var consumer = segment.consumer()
        _ = consumer.drain()
        var producer = segment.producer(slot: 0)
        for round in 0..<3 as Range<UInt64> where NumberedTree.publish(70 + round, to: &producer) {
            if consumer.drain().contains(70 + round) {
                #expect(consumer.isEmpty == true, "\(comment)")
                return
            }
        }
        Issue.record("the ring stays silent: \(comment)")
    }

    private static let impossibleHeaders: [(UInt32, UInt16)] = [
        (0, 1), (4, 1), (7, 1), (12, 1), (65544, 1), (UInt32.max, 1), (UInt32.max - 7, 1), (64, 0), (64, 4),
        (64, 0xFFFF), (4096, 1), (4096, 2), (0, 2),
    ]

    @Test(arguments: impossibleHeaders)
    func aHeaderThatCannotBeIsSkippedAndCounted(sizeBytes: UInt32, kind: UInt16) {
        segment.overwrite(sizeBytes: sizeBytes, kind: kind, at: start)
        segment.setTail(start + 2048)
        var consumer = segment.consumer()
        #expect(consumer.nextNumber()?.number == nil)
        #expect(consumer.corruptions == 1)
        #expect(consumer.isEmpty == true)
        #expect(segment.head() == segment.tail())
        expectRecovery("header \(sizeBytes), \(kind)")
    }

    @Test func treesBeforeTheDamageAreRead() {
        var producer = segment.producer(slot: 0)
        NumberedTree.publish(1, to: &producer)
        let damaged = segment.tail()
        NumberedTree.publish(2, to: &producer)
        NumberedTree.publish(3, to: &producer)
        segment.overwrite(sizeBytes: 3, kind: 1, at: damaged)
        var consumer = segment.consumer()
        #expect(consumer.drain() == [1])
        #expect(consumer.corruptions == 1)
        NumberedTree.publish(4, to: &producer)
        #expect(consumer.drain() == [4])
    }

    @Test func damageIsGivenBackWithTheTreesBeforeIt() throws {
        var producer = segment.producer(slot: 0)
        NumberedTree.publish(1, to: &producer)
        NumberedTree.publish(2, to: &producer)
        let damaged = segment.tail()
        NumberedTree.publish(3, to: &producer)
        segment.overwrite(sizeBytes: 3, kind: 1, at: damaged)
        var consumer = segment.consumer()
        let firstRead = consumer.nextNumber()
        let first = try #require(firstRead)
        let secondRead = consumer.nextNumber()
        let second = try #require(secondRead)
        #expect(consumer.nextNumber()?.number == nil)
        #expect(consumer.corruptions == 1)
        #expect(segment.head() == start, "an exporter that dies now has delivered nothing")
        consumer.release(through: first.end)
        #expect(segment.head() < damaged)
        var successor = segment.consumer()
        #expect(successor.nextNumber()?.number == 2)
        consumer.release(through: second.end)
        #expect(segment.head() == segment.tail())
    }

    @Test func damageTwiceIsGivenBackAtOnce() throws {
        var producer = segment.producer(slot: 0)
        NumberedTree.publish(1, to: &producer)
        var damaged = segment.tail()
        NumberedTree.publish(2, to: &producer)
        segment.overwrite(sizeBytes: 3, kind: 1, at: damaged)
        var consumer = segment.consumer()
        let firstRead = consumer.nextNumber()
        let first = try #require(firstRead)
        #expect(consumer.nextNumber()?.number == nil)
        damaged = segment.tail()
        NumberedTree.publish(3, to: &producer)
        segment.overwrite(sizeBytes: 3, kind: 1, at: damaged)
        #expect(consumer.nextNumber()?.number == nil)
        #expect(consumer.corruptions == 2)
        #expect(segment.head() == start)
        consumer.release(through: first.end)
        #expect(segment.head() == segment.tail())
        NumberedTree.publish(4, to: &producer)
        #expect(consumer.drain() == [4])
        #expect(segment.head() == segment.tail())
    }

    @Test func aRecordMayNotReachOverTheEndOfTheData() {
        let end = UInt64(segment.ringBytes)
        segment.startCounts(at: end - 64)
        segment.overwrite(sizeBytes: 128, kind: 1, at: end - 64)
        segment.setTail(end + 512)
        var consumer = segment.consumer()
        #expect(consumer.nextNumber()?.number == nil)
        #expect(consumer.corruptions == 1)
    }

    private static let distances: [UInt64] = [
        1, 7, 8, 12, 4095, 4096, 131_072, 131_073, 131_080, 1 << 40, 1 << 62, UInt64(Int64.max),
    ]

    @Test(arguments: distances)
    func aTailThatCannotBeDoesNotKeepTheRingSilent(distance: UInt64) {
        for tail in [start &+ distance, start &- distance] {
            segment.startCounts(at: start)
            segment.setTail(tail)
            expectRecovery("head \(start), tail \(tail)")
        }
    }

    @Test func aTailBetweenRecordsDoesNotKeepTheConsumerAwake() {
        segment.setTail(start + 3)
        var consumer = segment.consumer()
        #expect(consumer.nextNumber()?.number == nil)
        #expect(consumer.fallAsleep() == true)
    }

    private static let heads: [UInt64] = [0, 1, 4096 + 8, 1 << 50, UInt64.max, UInt64.max - 7]

    @Test(arguments: heads)
    func aHeadThatCannotBeIsAFullRing(head: UInt64) {
        var producer = segment.producer(slot: 0)
        segment.setHead(head)
        for number in 1...200 as ClosedRange<UInt64> { NumberedTree.publish(number, to: &producer) }
        let published = segment.counters.treesPublished
        #expect(published + segment.counters.treesDroppedRingFull == 200)
    }

    @Test func countsMayWrapAround() {
        segment.startCounts(at: UInt64.max - 65535)
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        for number in 1...1000 as ClosedRange<UInt64> {
            #expect(NumberedTree.publish(number, to: &producer))
            #expect(consumer.drain() == [number])
        }
        #expect(segment.tail() < 1 << 40)
        #expect(consumer.corruptions == 0)
    }

    /// Reads a record to its end, whatever it holds, and says how long it is.
    private static func readAll(_ record: RawSpan) -> Int {
        _ = RequestExpander().withTree(record) { TreeReading($0) }
        return record.byteCount
    }

    /// Records of random bytes behind headers of all kinds, with random counts.
    @Test(arguments: 0..<300 as Range<UInt64>)
    func randomBytesNeverTrap(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        segment.startCounts(at: UInt64.random(in: 0...UInt64.max, using: &random) & ~7)
        var at = segment.head()
        for _ in 0..<Int.random(in: 1...20, using: &random) {
            let words = UInt32.random(in: 0...40, using: &random)
            let isSound = Int.random(in: 0..<8, using: &random) > 0
            segment.overwrite(
                (0..<Int(words) * 8).map { _ in UInt8.random(in: 0...255, using: &random) & 0x83 }, at: at)
            segment.overwrite(
                sizeBytes: isSound ? words * 8 : UInt32.random(in: 0...UInt32.max, using: &random),
                kind: UInt16.random(in: 0...4, using: &random), at: at)
            at &+= UInt64(words) * 8
        }
        segment.setTail(at &+ UInt64.random(in: 0...64, using: &random))
        var consumer = segment.consumer()
        var bytesRead = 0
        while let (count, _) = consumer.next(slot: 0, Self.readAll) { bytesRead += count }
        #expect(bytesRead <= segment.ringBytes)
        expectRecovery("seed \(seed)")
    }
}
