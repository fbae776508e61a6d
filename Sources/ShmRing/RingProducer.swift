import CShims
import Glibc

/// The writing end of one ring. Exactly one process at a time holds one for a given slot.
///
///     reserve ──► writer (bytes nobody can see) ──► publish (tail moves, consumer woken if asleep)
///        └─ no room: counted, nil                └─ dropped: nothing happened
///
/// Never blocks and never waits for the consumer. `head` is read only when the last value seen leaves
/// too little room, so a steady producer and a steady consumer rarely touch each other's cache lines.
/// A head that cannot be is a full ring and no more: the other end is trusted no further than it trusts us.
@safe
public struct RingProducer: ~Copyable {
    private let segment: SpanSegment
    private let ring: UnsafeMutablePointer<lb_ring_header>
    private let data: UnsafeMutableRawPointer
    private let ringBytes: UInt64
    private var tail: UInt64
    private var headSeen: UInt64
    /// Trees dropped since the last one that was published; goes out with the next as `lb.trees_lost`.
    public private(set) var treesLost: UInt64 = 0

    init(segment: SpanSegment, slot: Int) {
        self.segment = segment
        unsafe ring = segment.ring(slot)
        unsafe data = segment.data(slot)
        ringBytes = UInt64(segment.ringBytes)
        headSeen = unsafe lb_load_acquire(&ring.pointee.head)
        tail = unsafe Self.soundTail(lb_load_acquire(&ring.pointee.tail), head: headSeen)
        unsafe lb_store_release(&ring.pointee.tail, tail)
        unsafe ring.pointee.owner_pid = getpid()
        unsafe ring.pointee.owner_generation = segment.generation
        unsafe ring.pointee.owner_started_ns = Clock.realtimeNs()
    }

    /// The tail that a predecessor left. One between records or behind the head is damage of its memory, and
    /// would keep this ring silent for good; one too far ahead the consumer finds and skips to.
    private static func soundTail(_ tail: UInt64, head: UInt64) -> UInt64 {
        let isBehind = Int64(bitPattern: tail &- head) < 0
        return (isBehind ? head : tail) & ~7
    }

    /// Where the next record begins, or the padding before it.
    var position: UInt64 { tail }

    /// Whether `reserve` would find room.
    public mutating func hasRoom(bytesMax: Int) -> Bool {
        let wanted = (UInt64(bytesMax) + 7) & ~7
        return hasRoom(for: paddingBytes(before: wanted) + wanted)
    }

    /// Room for one tree.
    /// - Parameter bytesMax: What the tree may take at most, up to 64 KiB; attributes beyond are cut.
    /// - Returns: Nil when the ring is full; the loss is counted.
    public mutating func reserve(bytesMax: Int) -> TreeWriter? {
        let wanted = (bytesMax + 7) & ~7
        guard let start = unsafe place(bytes: wanted) else { return nil }
        return unsafe TreeWriter(start: start, capacityBytes: wanted)
    }

    /// Room for the record of one usual request.
    /// - Parameter textBytes: What its texts take together.
    /// - Returns: Nil when the ring is full; the loss is counted.
    public mutating func reserveRequest(textBytes: Int) -> RequestWriter? {
        let wanted = RequestWriter.bytes(texts: textBytes)
        guard let start = unsafe place(bytes: wanted) else { return nil }
        return unsafe RequestWriter(start: start, capacityBytes: wanted)
    }

    /// Makes a written tree visible to the consumer, whole, and wakes it if it sleeps.
    public mutating func publish(_ writer: consuming TreeWriter) {
        let cut = writer.valuesCut
        if cut > 0 { unsafe lb_count(&ring.pointee.values_cut, cut) }
        let spans = writer.spanCount
        guard let bytes = writer.finish() else {
            drop(reason: .tooLarge)
            return
        }
        publish(bytes: bytes, spans: Int(spans))
    }

    /// Makes the record of a usual request visible, as the tree that it stands for.
    public mutating func publish(_ writer: consuming RequestWriter, _ facts: lb_request_header) {
        publish(bytes: writer.finish(facts), spans: RequestReader.spanCount(facts))
    }

    private mutating func publish(bytes: Int, spans: Int) {
        tail &+= UInt64(bytes)
        treesLost = 0
        unsafe lb_count(&ring.pointee.trees_published, 1)
        unsafe lb_count(&ring.pointee.spans_published, UInt64(spans))
        unsafe lb_store_release(&ring.pointee.tail, tail)
        segment.wakeConsumerIfAsleep()
    }

    /// Where a record of at most `bytes`, a multiple of 8, may be written. Without room the loss is counted.
    private mutating func place(bytes: Int) -> UnsafeMutableRawPointer? {
        precondition(bytes > 0 && bytes <= Int(LB_RECORD_BYTES_MAX), "a record of \(bytes) bytes")
        let padding = paddingBytes(before: UInt64(bytes))
        guard hasRoom(for: padding + UInt64(bytes)) else {
            drop(reason: .ringFull)
            return nil
        }
        if padding > 0 { writePad(bytes: padding) }
        return unsafe data + Int(tail & (ringBytes - 1))
    }

    private enum DropReason { case ringFull, tooLarge }

    private mutating func drop(reason: DropReason) {
        treesLost += 1
        switch reason {
        case .ringFull: unsafe lb_count(&ring.pointee.trees_dropped.0, 1)
        case .tooLarge: unsafe lb_count(&ring.pointee.trees_dropped.1, 1)
        }
    }

    /// Bytes to skip so that a record of `wanted` bytes does not wrap.
    private func paddingBytes(before wanted: UInt64) -> UInt64 {
        let toEnd = ringBytes - (tail & (ringBytes - 1))
        return toEnd < wanted ? toEnd : 0
    }

    private mutating func hasRoom(for bytes: UInt64) -> Bool {
        if tail &+ bytes &- headSeen <= ringBytes { return true }
        headSeen = unsafe lb_load_acquire(&ring.pointee.head)
        return tail &+ bytes &- headSeen <= ringBytes
    }

    private mutating func writePad(bytes: UInt64) {
        let pad = lb_record_header(size_bytes: UInt32(bytes), kind: UInt16(LB_RECORD_PAD), reserved: 0)
        unsafe (data + Int(tail & (ringBytes - 1))).storeBytes(of: pad, as: lb_record_header.self)
        tail &+= bytes
    }
}
