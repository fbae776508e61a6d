import CShims
import Glibc

/// What the workers of one generation are doing, as the master's watchdog sees it: shared memory with a place of
/// 64 bytes for each worker slot.
///
/// A worker stores when its loop turned last and what it serves, plain stores both; it wakes for that now and then
/// when nothing happens. The master reads, and believes nothing but that numbers are numbers.
/// Unsafe: addresses inside the mapping, each computed from a checked slot.
@safe
public final class StatusBoard {
    private static let placeBytes = Int(LB_CACHE_LINE_BYTES)

    /// How many worker slots there are.
    public let slotCount: Int
    private let base: UnsafeMutableRawPointer
    private let memory: FileDescriptor

    /// The memory file, for another image of the master.
    public var memoryDescriptor: Int32 { memory.rawValue }

    /// - Throws: What the kernel refused.
    public convenience init(slotCount: Int) throws(Errno) {
        let raw = unsafe lb_memfd_create("load_balancer-status")
        guard raw >= 0 else { throw Errno.last }
        let memory = FileDescriptor(owning: raw)
        guard ftruncate(raw, slotCount * Self.placeBytes) == 0 else { throw Errno.last }
        try self.init(adopting: memory, slotCount: slotCount)
    }

    /// Maps the memory of a board that exists.
    /// - Throws: What the kernel refused; EINVAL when the file is too short.
    public init(adopting memory: consuming FileDescriptor, slotCount: Int) throws(Errno) {
        precondition(slotCount > 0, "a status board without places")
        let bytes = slotCount * Self.placeBytes
        var facts = stat()
        guard unsafe fstat(memory.rawValue, &facts) == 0 else { throw Errno.last }
        guard facts.st_size >= bytes else { throw Errno(EINVAL) }
        let address = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.rawValue, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else { throw Errno.last }
        unsafe base = address
        self.memory = memory
        self.slotCount = slotCount
    }

    deinit {
        unsafe munmap(base, slotCount * Self.placeBytes)
    }

    /// The worker's end of one place.
    public func place(_ slot: Int) -> StatusPlace {
        StatusPlace(board: self, slot: slot)
    }

    /// When the worker's loop turned last, in nanoseconds of the monotonic clock; 0: it has not yet.
    public func turnedNs(_ slot: Int) -> UInt64 { unsafe lb_load_relaxed(word(slot, 0)) }

    /// What the worker served last.
    public func activity(_ slot: Int) -> UInt64 { unsafe lb_load_relaxed(word(slot, 1)) }

    /// Nobody is in the place any more.
    public func clear(_ slot: Int) {
        unsafe lb_store_relaxed(word(slot, 0), 0)
        unsafe lb_store_relaxed(word(slot, 1), 0)
    }

    fileprivate func word(_ slot: Int, _ index: Int) -> UnsafeMutablePointer<UInt64> {
        precondition(slot >= 0 && slot < slotCount, "place \(slot) of \(slotCount)")
        return unsafe (base + slot * Self.placeBytes).assumingMemoryBound(to: UInt64.self) + index
    }
}

/// Where one worker says what it does.
@safe
public struct StatusPlace {
    private let board: StatusBoard
    private let words: UnsafeMutablePointer<UInt64>

    fileprivate init(board: StatusBoard, slot: Int) {
        self.board = board
        unsafe words = board.word(slot, 0)
    }

    /// The loop turns.
    @inline(__always)
    public func turned(_ nowNs: UInt64) { unsafe lb_store_relaxed(words, nowNs) }

    /// - Parameter code: The bits of what is served; the worker's own numbering.
    @inline(__always)
    public func serves(_ code: UInt64) { unsafe lb_store_relaxed(words + 1, code) }
}
