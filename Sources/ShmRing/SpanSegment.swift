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
    /// Worker slots, each with a ring. The consumer has one more ring, for what it finds of dead workers.
    public let ringCount: Int
    /// Data bytes of each ring, a power of two.
    public let ringBytes: Int
    private let base: UnsafeMutableRawPointer
    private let segmentBytes: Int
    private let memory: FileDescriptor
    private let wake: FileDescriptor

    /// Why a segment could not be made.
    public struct CreationError: Error, CustomStringConvertible {
        let step: StaticString
        let errno: Errno
        public var description: String { "span segment: \(step) failed: \(errno)" }
    }

    /// The eventfd that producers write when the consumer sleeps.
    public var wakeDescriptor: Int32 { wake.rawValue }

    /// The memory file, for a process image that is to adopt the segment. Children need only the mapping.
    public var memoryDescriptor: Int32 { memory.rawValue }

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
        segmentBytes = Self.segmentBytes(ringCount: ringCount, ringBytes: ringBytes)
        do { wake = try FileDescriptor.eventCounter() } catch { throw CreationError(step: "eventfd", errno: error) }
        memory = try Self.memoryFile(bytes: segmentBytes)
        do { unsafe base = try Self.map(memory, bytes: segmentBytes) } catch {
            throw CreationError(step: "mmap", errno: error)
        }
        unsafe header.pointee.magic = UInt64(LB_SHM_MAGIC)
        unsafe header.pointee.layout_version = LB_SHM_LAYOUT_VERSION
        unsafe header.pointee.ring_count = UInt32(ringCount)
        unsafe header.pointee.ring_bytes = UInt64(ringBytes)
        unsafe header.pointee.segment_bytes = UInt64(segmentBytes)
        unsafe header.pointee.rings_offset = UInt64(LB_PAGE_BYTES)
        unsafe header.pointee.inflight_offset = UInt64(Self.inflightOffset(ringCount: ringCount, ringBytes: ringBytes))
        unsafe header.pointee.generation = generation
        unsafe header.pointee.master_pid = masterPID
        unsafe header.pointee.created_unix_ns = Clock.realtimeNs()
    }

    /// Maps a segment that another process image made, and believes it only what agrees with the file's size.
    /// - Parameters:
    ///   - memory: What was `memoryDescriptor` there.
    ///   - wake: What was `wakeDescriptor` there.
    /// - Throws: `AdoptionError` with what is wrong; both descriptors are closed then.
    public init(adopting memory: consuming FileDescriptor, wake: consuming FileDescriptor) throws(AdoptionError) {
        let shape = try Self.shape(of: memory)
        do { unsafe base = try Self.map(memory, bytes: shape.segmentBytes) } catch { throw .unreadable(error) }
        ringCount = shape.ringCount
        ringBytes = shape.ringBytes
        segmentBytes = shape.segmentBytes
        self.memory = memory
        self.wake = wake
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

    /// Where the process that fills a slot for the `incarnation`th time, from 0, notes its requests.
    public func inflightTable(slot: Int, incarnation: UInt32) -> InflightTable {
        InflightTable(segment: self, slot: slot, incarnation: incarnation)
    }

    /// What dead workers left. For the process that is the consumer.
    public func postMortemReader() -> PostMortemReader {
        PostMortemReader(segment: self)
    }

    /// Attaches the consumer's process as the producer of its own ring.
    public func postMortemProducer() -> RingProducer {
        RingProducer(segment: self, slot: ringCount)
    }

    /// What workers have counted so far, summed over all their rings.
    public var counters: SpanCounters {
        var sum = SpanCounters()
        for slot in 0..<ringCount {
            unsafe sum.add(ring(slot))
        }
        return sum
    }

    /// Tells the exporter how a worker ended that did not end in order. Called by the master, once it has reaped it.
    /// - Parameters:
    ///   - slot: The worker's slot.
    ///   - incarnation: How many processes had filled the slot before this one.
    ///   - signal: What killed it; 0 when it exited by itself.
    ///   - unixNs: When, in nanoseconds since 1970.
    public func noteDeath(slot: Int, incarnation: UInt32, signal: Int32, unixNs: UInt64) {
        unsafe lb_note_death(ring(slot), incarnation, signal, unixNs)
        wakeConsumerIfAsleep()
    }

    /// Wakes the consumer where it sleeps. Called after whatever it is to see was stored with release.
    func wakeConsumerIfAsleep() {
        guard unsafe lb_consumer_needs_wake(header) != 0 else { return }
        var one: UInt64 = 1
        // EAGAIN means the counter is at its maximum: the consumer has been told already.
        _ = unsafe write(wakeDescriptor, &one, 8)
    }

    var header: UnsafeMutablePointer<lb_segment_header> {
        unsafe base.assumingMemoryBound(to: lb_segment_header.self)
    }

    func ring(_ slot: Int) -> UnsafeMutablePointer<lb_ring_header> {
        precondition(slot >= 0 && slot <= ringCount, "ring \(slot) of \(ringCount) and one")
        let offset = Int(LB_PAGE_BYTES) + slot * (Int(LB_PAGE_BYTES) + ringBytes)
        return unsafe (base + offset).assumingMemoryBound(to: lb_ring_header.self)
    }

    func data(_ slot: Int) -> UnsafeMutableRawPointer {
        unsafe UnsafeMutableRawPointer(ring(slot)) + Int(LB_PAGE_BYTES)
    }

    static func segmentBytes(ringCount: Int, ringBytes: Int) -> Int {
        inflightOffset(ringCount: ringCount, ringBytes: ringBytes) + ringCount * Int(LB_DEATHS) * inflightTableBytes
    }

    static func inflightOffset(ringCount: Int, ringBytes: Int) -> Int {
        Int(LB_PAGE_BYTES) + (ringCount + 1) * (Int(LB_PAGE_BYTES) + ringBytes)
    }

    private static var inflightTableBytes: Int { Int(LB_INFLIGHT_ENTRIES) * MemoryLayout<lb_inflight_entry>.stride }

    func inflightEntries(slot: Int, incarnation: UInt32) -> UnsafeMutablePointer<lb_inflight_entry> {
        precondition(slot >= 0 && slot < ringCount, "slot \(slot) of \(ringCount)")
        let table = slot * Int(LB_DEATHS) + Int(incarnation % LB_DEATHS)
        let offset = Self.inflightOffset(ringCount: ringCount, ringBytes: ringBytes) + table * Self.inflightTableBytes
        return unsafe (base + offset).assumingMemoryBound(to: lb_inflight_entry.self)
    }

    func inflightHeader(slot: Int, incarnation: UInt32) -> UnsafeMutablePointer<lb_inflight_header> {
        let first = unsafe UnsafeMutableRawPointer(ring(slot)) + MemoryLayout<lb_ring_header>.offset(of: \.inflight)!
        return unsafe first.assumingMemoryBound(to: lb_inflight_header.self) + Int(incarnation % LB_DEATHS)
    }

    func deathRecord(slot: Int, incarnation: UInt32) -> UnsafeMutablePointer<lb_death_record> {
        let first = unsafe UnsafeMutableRawPointer(ring(slot)) + MemoryLayout<lb_ring_header>.offset(of: \.deaths)!
        return unsafe first.assumingMemoryBound(to: lb_death_record.self) + Int(incarnation % LB_DEATHS)
    }

    private static func roundedRingBytes(_ wanted: Int) -> Int {
        var bytes = 2 * Int(LB_RECORD_BYTES_MAX)
        while bytes < wanted { bytes *= 2 }
        return bytes
    }

    private static func memoryFile(bytes: Int) throws(CreationError) -> FileDescriptor {
        let raw = unsafe lb_memfd_create("load_balancer-spans")
        guard raw >= 0 else { throw CreationError(step: "memfd_create", errno: Errno.last) }
        let memory = FileDescriptor(owning: raw)
        guard ftruncate(memory.rawValue, bytes) == 0 else { throw CreationError(step: "ftruncate", errno: Errno.last) }
        return memory
    }

    private static func map(_ memory: borrowing FileDescriptor, bytes: Int) throws(Errno) -> UnsafeMutableRawPointer {
        let address = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.rawValue, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else { throw Errno.last }
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
