import CShims
import Glibc
import Testing

@testable import ShmRing

// Unsafe: writes into a segment's header as a broken or foreign process image could.

@Suite struct SegmentAdoptionTests {
    private func copies(of segment: SpanSegment) -> (memory: Int32, wake: Int32) {
        (fcntl(segment.memoryDescriptor, F_DUPFD_CLOEXEC, 0), fcntl(segment.wakeDescriptor, F_DUPFD_CLOEXEC, 0))
    }

    private func adopt(_ segment: SpanSegment) throws(SpanSegment.AdoptionError) -> SpanSegment {
        let (memory, wake) = copies(of: segment)
        return try SpanSegment(adopting: FileDescriptor(owning: memory), wake: FileDescriptor(owning: wake))
    }

    private func refusal(_ segment: SpanSegment) -> SpanSegment.AdoptionError? {
        do throws(SpanSegment.AdoptionError) {
            _ = try adopt(segment)
            return nil
        } catch {
            return error
        }
    }

    private func makeSegment() throws -> SpanSegment {
        try SpanSegment(ringCount: 3, ringBytesMin: 0, generation: 9, masterPID: getpid())
    }

    @Test func whatWasWrittenIsReadThroughTheAdoptedSegment() throws {
        let original = try makeSegment()
        var producer = original.producer(slot: 2)
        NumberedTree.publish(4, to: &producer)
        let adopted = try adopt(original)
        #expect(adopted.ringCount == 3)
        #expect(adopted.ringBytes == original.ringBytes)
        #expect(adopted.generation == 9)
        #expect(adopted.counters.treesPublished == 1)
        var consumer = adopted.consumer()
        #expect(consumer.drain(slot: 2) == [4])
        NumberedTree.publish(5, to: &producer)
        #expect(consumer.drain(slot: 2) == [5], "both are one memory")
    }

    @Test func theWakeDescriptorIsAdoptedToo() throws {
        let original = try makeSegment()
        let adopted = try adopt(original)
        let consumer = adopted.consumer()
        #expect(consumer.fallAsleep() == true)
        var producer = original.producer(slot: 0)
        NumberedTree.publish(1, to: &producer)
        var count: UInt64 = 0
        #expect(unsafe read(adopted.wakeDescriptor, &count, 8) == 8)
        #expect(count == 1)
    }

    @Test func filesThatAreNoSegmentsAreRefused() throws {
        for bytes in [0, 100, 4096, 1 << 20] {
            let raw = unsafe lb_memfd_create("test")
            #expect(ftruncate(raw, bytes) == 0)
            let error = #expect(throws: SpanSegment.AdoptionError.self) {
                _ = try SpanSegment(adopting: FileDescriptor(owning: raw), wake: try .eventCounter())
            }
            #expect(error == .notASegment)
        }
        var ends: [Int32] = [-1, -1]
        #expect(unsafe pipe(&ends) == 0)
        let writeEnd = FileDescriptor(owning: ends[1])
        let error = #expect(throws: SpanSegment.AdoptionError.self) {
            _ = try SpanSegment(adopting: FileDescriptor(owning: ends[0]), wake: try .eventCounter())
        }
        #expect(error == .unreadable(Errno(ESPIPE)))
        _ = consume writeEnd
    }

    @Test func numbersThatCannotBeAreRefused() throws {
        let cases: [(SpanSegment.AdoptionError, (UnsafeMutablePointer<lb_segment_header>) -> Void)] = unsafe [
            (.notASegment, { unsafe $0.pointee.magic += 1 }),
            (.version(77), { unsafe $0.pointee.layout_version = 77 }),
            (.contradiction(field: "rings_offset", value: 0), { unsafe $0.pointee.rings_offset = 0 }),
            (.contradiction(field: "ring_count", value: 0), { unsafe $0.pointee.ring_count = 0 }),
            (.contradiction(field: "ring_count", value: 0xffff_ffff), { unsafe $0.pointee.ring_count = .max }),
            (.contradiction(field: "ring_bytes", value: 65536), { unsafe $0.pointee.ring_bytes = 65536 }),
            (.contradiction(field: "ring_bytes", value: 131073), { unsafe $0.pointee.ring_bytes += 1 }),
            (.contradiction(field: "ring_bytes", value: 1 << 63), { unsafe $0.pointee.ring_bytes = 1 << 63 }),
            (.contradiction(field: "inflight_offset", value: 7), { unsafe $0.pointee.inflight_offset = 7 }),
            (.contradiction(field: "segment_bytes", value: 1), { unsafe $0.pointee.segment_bytes = 1 }),
        ]
        for unsafe(expected, damage) in unsafe cases {
            let segment = try makeSegment()
            unsafe damage(segment.header)
            #expect(refusal(segment) == expected)
        }
    }

    @Test func aFileOfAnotherSizeIsRefused() throws {
        let segment = try makeSegment()
        let bytes = SpanSegment.segmentBytes(ringCount: 3, ringBytes: segment.ringBytes)
        for wrong in [bytes - 4096, bytes + 4096] {
            #expect(ftruncate(segment.memoryDescriptor, wrong) == 0)
            #expect(refusal(segment) == .contradiction(field: "the file's size", value: UInt64(wrong)))
        }
        // A count that the file's size does not bear out.
        #expect(ftruncate(segment.memoryDescriptor, bytes) == 0)
        let offset = unsafe segment.header.pointee.inflight_offset
        unsafe segment.header.pointee.ring_count = 4
        #expect(refusal(segment) == .contradiction(field: "inflight_offset", value: offset))
    }
}
