import CShims
import Glibc
import Testing

@testable import ShmRing

/// Both ends at work at the same time, in two threads, so that ThreadSanitizer sees both.
@Suite(.serialized) struct RingThreadsTests {
    /// A wait that takes longer than this is one that never ends.
    private static let hangNs: UInt64 = 60_000_000_000

    /// A small ring, so that it wraps often and is full at times.
    @Test func everyTreeArrivesWholeAndInOrder() {
        let segment = SpanSegment.small()
        let attempts: UInt64 = 20_000
        let join = onThread {
            var producer = segment.producer(slot: 0)
            for number in 1...attempts where !NumberedTree.publish(number, to: &producer) { sched_yield() }
            NumberedTree.publishSurely(attempts + 1, to: &producer)
        }
        var consumer = segment.consumer()
        var received: UInt64 = 0
        var last: UInt64 = 0
        let deadline = Clock.monotonicNs() + Self.hangNs
        while last <= attempts, Clock.monotonicNs() < deadline {
            guard let (number, end) = consumer.nextNumber() else {
                sched_yield()
                continue
            }
            guard let number, number > last else {
                Issue.record("after tree \(last) came \(number.map { "tree \($0)" } ?? "one that is not whole")")
                break
            }
            last = number
            received += 1
            consumer.release(through: end)
        }
        join()
        #expect(last == attempts + 1)
        #expect(received == segment.counters.treesPublished)
        #expect(received + segment.counters.treesDroppedRingFull >= attempts + 1)
        #expect(segment.tail() > UInt64(4 * segment.ringBytes), "the ring should have wrapped")
        #expect(consumer.corruptions == 0)
    }

    /// The producer publishes one tree at a random moment around the consumer's falling asleep, and no other
    /// until it has been read: a lost wake-up would leave both waiting. The tree is written beforehand, so
    /// that nothing but publishing lies between that moment and the wake-up.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func noWakeUpIsLost(seed: UInt64) {
        let segment = SpanSegment.small()
        let trees: UInt64 = 20_000
        let join = onThread {
            var producer = segment.producer(slot: 0)
            var random = SplitMix64(seed: seed)
            let deadline = Clock.monotonicNs() + Self.hangNs
            for number in 1...trees {
                let pause = Int.random(in: 0...80, using: &random)
                var writer = producer.reserve(bytesMax: NumberedTree.bytesMax)!
                NumberedTree.write(number, to: &writer)
                while segment.head() != segment.tail() {
                    guard Clock.monotonicNs() < deadline else { return }
                }
                for _ in 0..<pause { _ = segment.head() }
                producer.publish(writer)
            }
        }
        var consumer = segment.consumer()
        var last: UInt64 = 0
        var sleeps = 0
        while last < trees {
            if let number = consumer.drain().last { last = number ?? last }
            guard last < trees, consumer.fallAsleep() else { continue }
            sleeps += 1
            var wake = pollfd(fd: consumer.wakeDescriptor, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&wake, 1, 20_000) == 1 else {
                Issue.record("asleep with \(consumer.unreadBytes(slot: 0)) bytes to read, after tree \(last)")
                break
            }
            consumer.wakeUp()
        }
        join()
        #expect(last == trees)
        #expect(sleeps > 100, "the consumer should have slept often")
    }
}

extension NumberedTree {
    /// Waits for room.
    static func publishSurely(_ number: UInt64, to producer: inout RingProducer) {
        while !publish(number, to: &producer) { sched_yield() }
    }
}
