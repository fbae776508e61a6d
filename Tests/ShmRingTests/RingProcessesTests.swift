import CShims
import Glibc
import Testing

@testable import ShmRing

/// Both ends in two processes, as in the product. A child does nothing but write trees: the rest of this
/// process's threads are not there after the fork.
@Suite(.serialized) struct RingProcessesTests {
    private static let hangNs: UInt64 = 60_000_000_000

    /// Forks a child that publishes trees from 1 up to `last` and exits.
    private func forkProducer(_ segment: SpanSegment, last: UInt64) throws -> pid_t {
        // Whatever the child needs of the Swift runtime is set up here, before the fork.
        let rehearsal = SpanSegment.small()
        var producer = rehearsal.producer(slot: 0)
        for number in 0..<8 as Range<UInt64> { NumberedTree.publishSurely(number, to: &producer) }
        let pid = lb_fork()
        try #require(pid >= 0, "fork: \(Errno.last)")
        guard pid == 0 else { return pid }
        var own = segment.producer(slot: 0)
        var number: UInt64 = 0
        while number < last {
            number += 1
            NumberedTree.publishSurely(number, to: &own)
        }
        _exit(0)
    }

    private func waitForEnd(_ pid: pid_t) -> Int32 {
        var status: Int32 = 0
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return status
    }

    /// Reads trees until `last` or the deadline, each of which must be the successor of the one before.
    private func read(_ consumer: inout SegmentConsumer, from first: UInt64, to last: UInt64) -> UInt64 {
        var expected = first
        let deadline = Clock.monotonicNs() + Self.hangNs
        while expected <= last, Clock.monotonicNs() < deadline {
            guard let (number, end) = consumer.nextNumber() else {
                sched_yield()
                continue
            }
            guard number == expected else { return expected }
            consumer.release(through: end)
            expected += 1
        }
        return expected
    }

    @Test func everyTreeOfAChildArrives() throws {
        let segment = SpanSegment.small()
        let child = try forkProducer(segment, last: 20_000)
        var consumer = segment.consumer()
        let reached = read(&consumer, from: 1, to: 20_000)
        // One that still waits for room would wait for ever.
        if reached != 20_001 { kill(child, SIGKILL) }
        #expect(reached == 20_001)
        #expect(waitForEnd(child) == 0)
        #expect(consumer.isEmpty == true)
        #expect(segment.counters.treesPublished == 20_000)
        #expect(consumer.corruptions == 0)
    }

    /// The ring outlives its writer: what was published is read, what was being written is not, and the
    /// next writer goes on from there.
    @Test(arguments: [100, 1000, 3000, 5000] as [UInt64])
    func aChildKilledInMidWriteLeavesWholeTreesOnly(killedAfter: UInt64) throws {
        let segment = SpanSegment.small()
        let child = try forkProducer(segment, last: .max)
        var consumer = segment.consumer()
        #expect(read(&consumer, from: 1, to: killedAfter) == killedAfter + 1)
        kill(child, SIGKILL)
        let status = waitForEnd(child)
        #expect(status & 0x7F == SIGKILL)
        let rest = consumer.drain()
        #expect(rest == (0..<UInt64(rest.count)).map { killedAfter + 1 + $0 })
        #expect(consumer.corruptions == 0)
        var successor = segment.producer(slot: 0)
        NumberedTree.publish(7, to: &successor)
        #expect(consumer.drain() == [7])
    }
}
