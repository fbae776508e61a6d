import CShims
import Glibc
import Testing

@testable import ShmRing

/// One process, both ends: what each end does to the ring, step by step.
@Suite struct RingTests {
    private let segment = SpanSegment.small()

    @Test func treesComeOutInOrder() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        #expect(consumer.isEmpty == true)
        for number in 1...5 as ClosedRange<UInt64> { #expect(NumberedTree.publish(number, to: &producer)) }
        #expect(consumer.isEmpty == false)
        #expect(consumer.unreadBytes(slot: 0) == Int(segment.tail()))
        #expect(consumer.drain() == [1, 2, 3, 4, 5])
        #expect(consumer.isEmpty == true)
    }

    @Test func recordsNeverWrapBecauseAPadClosesTheEnd() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        var recordBytes = 0
        for number in 1...2000 as ClosedRange<UInt64> {
            #expect(NumberedTree.publish(number, to: &producer))
            let read = consumer.next(slot: 0) { (NumberedTree.number(of: $0), $0.byteCount) }
            #expect(read?.result.0 == number)
            recordBytes += read?.result.1 ?? 0
            if let read { consumer.release(through: read.end) }
        }
        let laps = Int(segment.tail()) / segment.ringBytes
        #expect(laps >= 4)
        #expect(Int(segment.tail()) > recordBytes)
        #expect(Int(segment.tail()) - recordBytes <= (laps + 1) * NumberedTree.bytesMax)
        #expect(consumer.corruptions == 0)
        #expect(segment.head() == segment.tail())
    }

    /// Fills the ring and gives the numbers that were let in, 1 and up.
    private func fill(_ producer: inout RingProducer) -> UInt64 {
        var number: UInt64 = 0
        while NumberedTree.publish(number + 1, to: &producer) { number += 1 }
        return number
    }

    @Test func aFullRingDropsNewTreesAndCountsThem() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        let published = fill(&producer)
        #expect(!NumberedTree.publish(900, to: &producer))
        #expect(producer.treesLost == 2)
        #expect(segment.counters.treesDroppedRingFull == 2)
        #expect(segment.counters.treesPublished == published)
        #expect(segment.tail() <= UInt64(segment.ringBytes))
        #expect(consumer.drain() == (1...published).map { $0 })
        #expect(NumberedTree.publish(901, to: &producer))
        #expect(producer.treesLost == 0)
        #expect(segment.counters.treesDroppedRingFull == 2)
        #expect(consumer.drain() == [901])
    }

    @Test func aRingTakesExactlyWhatItHolds() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        let fitting = segment.ringBytes / 128
        for _ in 0..<fitting { #expect(publish128Bytes(&producer) == true) }
        #expect(segment.tail() == UInt64(segment.ringBytes))
        #expect(publish128Bytes(&producer) == false)
        consumer.release(through: consumer.next(slot: 0) { _ in }!.end)
        #expect(publish128Bytes(&producer) == true)
        #expect(publish128Bytes(&producer) == false)
        let sizes = Set((0..<fitting).map { _ in consumer.next(slot: 0) { $0.byteCount }?.result })
        #expect(sizes == [128])
        #expect(consumer.isEmpty == true)
        #expect(consumer.corruptions == 0)
    }

    /// A tree of 128 bytes, which divides the ring's size.
    private func publish128Bytes(_ producer: inout RingProducer) -> Bool {
        guard var writer = producer.reserve(bytesMax: 128) else { return false }
        let state: [UInt8] = []
        writer.begin(
            traceID: (1, 2), parentSpanID: 0, traceFlags: 0, baseUnixNs: 0, traceState: state.span)
        writer.beginSpan(.proxyRequest, kind: .server, id: 1, parent: nil, startOffsetNs: 0, endOffsetNs: 0)
        for _ in 0..<5 { writer.attribute(.failures, 1) }
        producer.publish(writer)
        return true
    }

    @Test func whatIsReadButNotReleasedIsNotOverwritten() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        let published = fill(&producer)
        var ends: [SegmentConsumer.Position] = []
        while let (_, end) = consumer.nextNumber() { ends.append(end) }
        #expect(consumer.isEmpty == true)
        #expect(!NumberedTree.publish(900, to: &producer))
        consumer.rewind(slot: 0)
        #expect(consumer.drain() == (1...published).map { $0 })
    }

    @Test func releasingMakesRoomForAsMuchAsWasReleased() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        _ = fill(&producer)
        var ends: [SegmentConsumer.Position] = []
        while let (_, end) = consumer.nextNumber() { ends.append(end) }
        consumer.release(through: ends[9])
        #expect(segment.head() == ends[9].count)
        let second = fill(&producer)
        #expect(second > 0)
        #expect(segment.tail() - segment.head() <= UInt64(segment.ringBytes))
        #expect(consumer.drain() == (1...second).map { $0 })
    }

    @Test func releasingAnOlderPositionChangesNothing() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        for number in 1...3 as ClosedRange<UInt64> { NumberedTree.publish(number, to: &producer) }
        let first = consumer.nextNumber()!.end
        let second = consumer.nextNumber()!.end
        consumer.release(through: second)
        consumer.release(through: first)
        #expect(segment.head() == second.count)
    }

    @Test func rewindGoesBackToWhatIsNotReleased() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        for number in 1...3 as ClosedRange<UInt64> { NumberedTree.publish(number, to: &producer) }
        consumer.release(through: consumer.nextNumber()!.end)
        #expect(consumer.nextNumber()?.number == 2)
        consumer.rewind(slot: 0)
        #expect(consumer.drain() == [2, 3])
    }

    @Test func aSuccessorConsumerStartsAtTheOldHead() {
        var producer = segment.producer(slot: 0)
        var first = segment.consumer()
        for number in 1...4 as ClosedRange<UInt64> { NumberedTree.publish(number, to: &producer) }
        first.release(through: first.nextNumber()!.end)
        #expect(first.nextNumber()?.number == 2)
        var second = segment.consumer()
        #expect(second.drain() == [2, 3, 4])
    }

    @Test func aSuccessorProducerGoesOnBehindWhatWasPublished() {
        var first = segment.producer(slot: 0)
        NumberedTree.publish(1, to: &first)
        var unfinished = first.reserve(bytesMax: NumberedTree.bytesMax)!
        NumberedTree.write(2, to: &unfinished)
        var second = segment.producer(slot: 0)
        NumberedTree.publish(3, to: &second)
        var consumer = segment.consumer()
        #expect(consumer.drain() == [1, 3])
    }

    @Test func aTreeThatIsNotPublishedWasNeverThere() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        for number in 1...400 as ClosedRange<UInt64> {
            _ = producer.reserve(bytesMax: NumberedTree.bytesMax)
            #expect(NumberedTree.publish(number, to: &producer))
            #expect(consumer.drain() == [number])
        }
        #expect(segment.counters.treesPublished == 400)
        #expect(producer.treesLost == 0)
    }

    @Test func aTreeThatDoesNotFitIsDroppedAndCounted() {
        var producer = segment.producer(slot: 0)
        var writer = producer.reserve(bytesMax: 64)!
        NumberedTree.write(1, to: &writer)
        producer.publish(writer)
        #expect(segment.tail() == 0)
        #expect(producer.treesLost == 1)
        #expect(segment.counters.treesDroppedTooLarge == 1)
        #expect(segment.counters.treesPublished == 0)
    }

    @Test func countersAreSummedOverRings() {
        let segment = SpanSegment.small(rings: 2)
        var zero = segment.producer(slot: 0)
        var one = segment.producer(slot: 1)
        NumberedTree.publish(3, to: &zero)
        NumberedTree.publish(1, to: &one)
        #expect(segment.counters.treesPublished == 2)
        #expect(segment.counters.spansPublished == 6)
    }

    @Test func ringsDoNotTouchEachOther() {
        let segment = SpanSegment.small(rings: 3)
        var zero = segment.producer(slot: 0)
        var two = segment.producer(slot: 2)
        NumberedTree.publish(10, to: &zero)
        _ = fill(&two)
        var consumer = segment.consumer()
        #expect(consumer.ringCount == 4, "and the consumer's own")
        #expect(consumer.drain(slot: 0) == [10])
        #expect(consumer.drain(slot: 1) == [])
        #expect(consumer.unreadBytes(slot: 2) > 0)
    }

    @Test func ringSizesAreRoundedUpToPowersOfTwo() throws {
        let segment = try SpanSegment(ringCount: 1, ringBytesMin: 300_000, generation: 1, masterPID: 1)
        #expect(segment.ringBytes == 524_288)
        #expect(SpanSegment.small().ringBytes == 131_072)
        #expect(SpanSegment.small().generation == 7)
    }

    // MARK: Sleeping

    private func wakeCount() -> UInt64 {
        var count: UInt64 = 0
        return unsafe read(segment.wakeDescriptor, &count, 8) == 8 ? count : 0
    }

    @Test func onlyASleepingConsumerIsWokenAndOnlyOnce() {
        var producer = segment.producer(slot: 0)
        var consumer = segment.consumer()
        NumberedTree.publish(1, to: &producer)
        #expect(wakeCount() == 0)
        #expect(consumer.drain() == [1])
        #expect(consumer.fallAsleep() == true)
        NumberedTree.publish(2, to: &producer)
        NumberedTree.publish(3, to: &producer)
        #expect(wakeCount() == 1)
        #expect(consumer.drain() == [2, 3])
    }

    @Test func aConsumerWithSomethingToReadDoesNotFallAsleep() {
        var producer = segment.producer(slot: 0)
        let consumer = segment.consumer()
        NumberedTree.publish(1, to: &producer)
        #expect(consumer.fallAsleep() == false)
        NumberedTree.publish(2, to: &producer)
        #expect(wakeCount() == 0)
    }

    @Test func wakingUpClearsTheDescriptorAndTheFlag() {
        var producer = segment.producer(slot: 0)
        let consumer = segment.consumer()
        #expect(consumer.fallAsleep() == true)
        NumberedTree.publish(1, to: &producer)
        consumer.wakeUp()
        #expect(wakeCount() == 0)
        NumberedTree.publish(2, to: &producer)
        #expect(wakeCount() == 0)
    }
}
