import CShims
import Glibc
import Testing

@testable import ShmRing

/// Both ends in two processes, as in the product. Each test runs in a process of its own and forks there: in
/// the one that runs all tests, another thread may hold a lock that nobody would free in the child.
@Suite(.serialized) struct RingProcessesTests {
    @Test func everyTreeOfAChildArrives() async {
        await #expect(processExitsWith: .success) {
            let segment = SpanSegment.small()
            let child = try ForkedProducer(segment, last: 20_000)
            var consumer = segment.consumer()
            let next = readInOrder(&consumer, to: 20_000)
            #expect(next == 20_001)
            // One that still waits for room would wait for ever.
            if next != 20_001 { child.kill() }
            #expect(child.waitForEnd() == 0)
            #expect(consumer.isEmpty == true)
            #expect(segment.counters.treesPublished == 20_000)
            #expect(consumer.corruptions == 0)
        }
    }

    /// The ring outlives its writer: what was published is read, what was being written is not, and the
    /// next writer goes on from there.
    @Test func aChildKilledInMidWriteLeavesWholeTreesOnly() async {
        await #expect(processExitsWith: .success) {
            for killedAfter in [1, 100, 1000, 3000, 5000] as [UInt64] {
                let segment = SpanSegment.small()
                let child = try ForkedProducer(segment, last: .max)
                var consumer = segment.consumer()
                #expect(readInOrder(&consumer, to: killedAfter) == killedAfter + 1)
                child.kill()
                #expect(child.waitForEnd() & 0x7F == SIGKILL)
                let rest = consumer.drain()
                #expect(rest == (0..<UInt64(rest.count)).map { killedAfter + 1 + $0 })
                #expect(consumer.corruptions == 0)
                var successor = segment.producer(slot: 0)
                NumberedTree.publish(7, to: &successor)
                #expect(consumer.drain() == [7])
            }
        }
    }
}

/// A child that publishes trees from 1 on.
private struct ForkedProducer {
    private let pid: pid_t

    /// - Parameter last: The number of the tree after which the child exits.
    init(_ segment: SpanSegment, last: UInt64) throws {
        pid = lb_fork()
        try #require(pid >= 0, "fork: \(Errno.last)")
        guard pid == 0 else { return }
        var producer = segment.producer(slot: 0)
        var number: UInt64 = 0
        while number < last {
            number += 1
            NumberedTree.publishSurely(number, to: &producer)
        }
        _exit(0)
    }

    func kill() { Glibc.kill(pid, SIGKILL) }

    /// - Returns: The status as waitpid(2) gives it.
    func waitForEnd() -> Int32 {
        var status: Int32 = 0
        while unsafe waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return status
    }
}

/// Reads trees from 1 up to `last`, each the successor of the one before. A wait of a minute is one that
/// never ends.
/// - Returns: The number that was expected next.
private func readInOrder(_ consumer: inout SegmentConsumer, to last: UInt64) -> UInt64 {
    var expected: UInt64 = 1
    let deadline = Clock.monotonicNs() + 60_000_000_000
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
