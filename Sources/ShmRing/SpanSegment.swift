import CShims
import Glibc

/// Owns the shared memory in which finished span trees travel from workers to the exporter.
///
/// The master creates it before it forks; children inherit the mapping and the wake-up descriptor, so no
/// process opens it by name. The layout and its rules are described in `shm_layout.h`.
/// Unsafe: raw addresses inside the mapping are handed to `RingProducer` and `SegmentConsumer`, which
/// keep the segment alive and check every offset.
@safe
public final class SpanSegment {
    /// How many rings the segment has: one a worker slot.
    public let ringCount: Int
    /// Data bytes of each ring, a power of two.
    public let ringBytes: Int
    private let base: UnsafeMutableRawPointer
    private let segmentBytes: Int
    private let wake: FileDescriptor

    /// Why a segment could not be made.
    public struct CreationError: Error, CustomStringConvertible {
        let step: StaticString
        let errno: Errno
        public var description: String { "span segment: \(step) failed: \(errno)" }
    }

    /// The eventfd that producers write when the consumer sleeps.
    public var wakeDescriptor: Int32 { wake.rawValue }

    /// Creates and maps a segment.
    /// - Parameters:
    ///   - ringCount: Worker slots, at least 1.
    ///   - ringBytesMin: Wanted data bytes of each ring; rounded up to a power of two, at least 128 KiB.
    ///   - generation: Number of this set of workers, counted from 1.
    ///   - masterPID: Process id of the master.
    /// - Throws: `CreationError` naming the system call that failed.
    public init(
        ringCount: Int, ringBytesMin: Int, generation: UInt32, masterPID: Int32
    ) throws(CreationError) {
        precondition(ringCount > 0, "a segment without rings")
        self.ringCount = ringCount
        ringBytes = Self.roundedRingBytes(ringBytesMin)
        segmentBytes = Int(LB_PAGE_BYTES) + ringCount * (Int(LB_PAGE_BYTES) + ringBytes)
        do { wake = try FileDescriptor.eventCounter() } catch { throw CreationError(step: "eventfd", errno: error) }
        unsafe base = try Self.map(bytes: segmentBytes)
        unsafe header.pointee.magic = UInt64(LB_SHM_MAGIC)
        unsafe header.pointee.layout_version = LB_SHM_LAYOUT_VERSION
        unsafe header.pointee.ring_count = UInt32(ringCount)
        unsafe header.pointee.ring_bytes = UInt64(ringBytes)
        unsafe header.pointee.segment_bytes = UInt64(segmentBytes)
        unsafe header.pointee.rings_offset = UInt64(LB_PAGE_BYTES)
        unsafe header.pointee.generation = generation
        unsafe header.pointee.master_pid = masterPID
        unsafe header.pointee.created_unix_ns = Clock.realtimeNs()
    }

    deinit {
        unsafe munmap(base, segmentBytes)
    }

    /// The number of the worker generation that writes here.
    public var generation: UInt32 { unsafe header.pointee.generation }

    /// Attaches this process as the one producer of a ring. Records of a predecessor stay readable.
    public func producer(slot: Int) -> RingProducer {
        RingProducer(segment: self, slot: slot)
    }

    /// Attaches this process as the one consumer of every ring, at the last released position of each.
    public func consumer() -> SegmentConsumer {
        SegmentConsumer(segment: self)
    }

    /// What the producers have counted so far, summed over all rings.
    public var counters: SpanCounters {
        var sum = SpanCounters()
        for slot in 0..<ringCount {
            unsafe sum.add(ring(slot))
        }
        return sum
    }

    var header: UnsafeMutablePointer<lb_segment_header> {
        unsafe base.assumingMemoryBound(to: lb_segment_header.self)
    }

    func ring(_ slot: Int) -> UnsafeMutablePointer<lb_ring_header> {
        precondition(slot >= 0 && slot < ringCount, "ring \(slot) of \(ringCount)")
        let offset = Int(LB_PAGE_BYTES) + slot * (Int(LB_PAGE_BYTES) + ringBytes)
        return unsafe (base + offset).assumingMemoryBound(to: lb_ring_header.self)
    }

    func data(_ slot: Int) -> UnsafeMutableRawPointer {
        unsafe UnsafeMutableRawPointer(ring(slot)) + Int(LB_PAGE_BYTES)
    }

    private static func roundedRingBytes(_ wanted: Int) -> Int {
        var bytes = 2 * Int(LB_RECORD_BYTES_MAX)
        while bytes < wanted { bytes *= 2 }
        return bytes
    }

    private static func map(bytes: Int) throws(CreationError) -> UnsafeMutableRawPointer {
        let raw = unsafe lb_memfd_create("load_balancer-spans")
        guard raw >= 0 else { throw CreationError(step: "memfd_create", errno: Errno.last) }
        let memory = FileDescriptor(owning: raw)
        guard ftruncate(memory.rawValue, bytes) == 0 else { throw CreationError(step: "ftruncate", errno: Errno.last) }
        let address = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.rawValue, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw CreationError(step: "mmap", errno: Errno.last)
        }
        return unsafe address
    }
}

/// What producers counted.
public struct SpanCounters: Equatable, Sendable {
    public var treesPublished: UInt64 = 0
    public var spansPublished: UInt64 = 0
    public var treesDroppedRingFull: UInt64 = 0
    public var treesDroppedTooLarge: UInt64 = 0
    /// Attribute values that were shortened, escaped beyond their limit or left out for want of room.
    public var valuesCut: UInt64 = 0

    public init() {}

    mutating func add(_ ring: UnsafeMutablePointer<lb_ring_header>) {
        treesPublished += unsafe lb_load_relaxed(&ring.pointee.trees_published)
        spansPublished += unsafe lb_load_relaxed(&ring.pointee.spans_published)
        treesDroppedRingFull += unsafe lb_load_relaxed(&ring.pointee.trees_dropped.0)
        treesDroppedTooLarge += unsafe lb_load_relaxed(&ring.pointee.trees_dropped.1)
        valuesCut += unsafe lb_load_relaxed(&ring.pointee.values_cut)
    }
}
