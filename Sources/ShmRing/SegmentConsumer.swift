import CShims
import Glibc

private let recordTree = UInt16(LB_RECORD_TREE)
private let recordPad = UInt16(LB_RECORD_PAD)
private let recordRequest = UInt16(LB_RECORD_REQUEST)

/// The reading end of every ring of a segment. Exactly one process at a time holds one.
///
///     next() ──► record, cursor moves ──► … delivered … ──► release(through:) ──► head moves
///
/// Between `next` and `release` the records stay in the segment: an exporter that dies loses nothing,
/// its successor starts at the old head. Nothing that a ring says is believed: a record whose size or
/// kind cannot be makes the ring's unread bytes worthless, and they are skipped and counted.
@safe
public struct SegmentConsumer: ~Copyable {
    /// Where a record ended in its ring; what `release` takes.
    public struct Position: Equatable, Sendable {
        public let slot: Int
        let count: UInt64
    }

    private let segment: SpanSegment
    private var cursors: [UInt64]
    /// Where the record that was handed out last ended, for each ring.
    private var handedOut: [UInt64]
    /// Damage that could not be given back at once, because records before it were not delivered yet.
    private var skipped: [Skip?]

    /// Bytes that cannot be records: they go with the last record before them.
    private struct Skip {
        let after: UInt64
        let end: UInt64
    }
    /// Times that a ring held bytes that cannot be records, and was skipped to its end.
    public private(set) var corruptions: UInt64 = 0

    init(segment: SpanSegment) {
        self.segment = segment
        cursors = (0...segment.ringCount).map { slot in
            unsafe lb_load_acquire(&segment.ring(slot).pointee.head) & ~7
        }
        handedOut = cursors
        skipped = cursors.map { _ in nil }
        unsafe segment.header.pointee.consumer_pid = getpid()
        unsafe segment.header.pointee.consumer_started_ns = Clock.realtimeNs()
    }

    /// How many rings there are: those of the workers, and behind them the consumer's own.
    public var ringCount: Int { segment.ringCount + 1 }

    /// Bytes of a ring that wait to be read.
    public func unreadBytes(slot: Int) -> Int {
        let waiting = tail(slot: slot) &- cursors[slot]
        return Int(min(waiting, UInt64(segment.ringBytes)))
    }

    /// True when no ring has anything to read.
    public var isEmpty: Bool {
        (0..<ringCount).allSatisfy { unreadBytes(slot: $0) == 0 }
    }

    /// Reads the next tree of a ring, or the record that stands for one, and moves the cursor behind it.
    /// - Parameters:
    ///   - slot: The ring.
    ///   - body: Called with the record's bytes, which are valid only inside the call.
    /// - Returns: What `body` returned and the position to release later, or nil when the ring is empty.
    public mutating func next<R>(slot: Int, _ body: (RawSpan) -> R) -> (result: R, end: Position)? {
        while let (offset, header) = recordHeader(slot: slot) {
            cursors[slot] &+= UInt64(header.size_bytes)
            guard header.kind != recordPad else { continue }
            handedOut[slot] = cursors[slot]
            let bytes = unsafe UnsafeRawBufferPointer(
                start: segment.data(slot) + offset, count: Int(header.size_bytes))
            return (unsafe body(bytes.bytes), Position(slot: slot, count: cursors[slot]))
        }
        return nil
    }

    /// Gives everything up to `position` back to the producer. A position behind the head changes nothing.
    public func release(through position: Position) {
        let ring = unsafe segment.ring(position.slot)
        var end = position.count
        if let skip = skipped[position.slot], Self.isBehind(skip.after, or: end), Self.isBehind(end, or: skip.end) {
            end = skip.end
        }
        guard unsafe !Self.isBehind(end, or: lb_load_relaxed(&ring.pointee.head)) else { return }
        unsafe lb_store_release(&ring.pointee.head, end)
    }

    /// Whether a count is not after another one.
    private static func isBehind(_ count: UInt64, or other: UInt64) -> Bool {
        Int64(bitPattern: other &- count) >= 0
    }

    /// Forgets what was read but not released: reading goes on at the ring's head.
    public mutating func rewind(slot: Int) {
        cursors[slot] = unsafe lb_load_acquire(&segment.ring(slot).pointee.head) & ~7
        handedOut[slot] = cursors[slot]
        skipped[slot] = nil
    }

    /// Says that the consumer is about to wait on the wake descriptor.
    /// - Returns: False when something arrived meanwhile, and it must not wait.
    public func fallAsleep() -> Bool {
        unsafe lb_consumer_falls_asleep(segment.header)
        guard isEmpty, segment.postMortemReader().nextDeath() == nil else {
            wakeUp()
            return false
        }
        return true
    }

    /// Says that the consumer looks by itself again, and clears the wake descriptor.
    public func wakeUp() {
        unsafe lb_consumer_is_awake(segment.header)
        var count: UInt64 = 0
        _ = unsafe read(segment.wakeDescriptor, &count, 8)
    }

    /// Shows that the consumer is alive.
    public func beat(nowNs: UInt64) {
        unsafe lb_store_relaxed(&segment.header.pointee.consumer_heartbeat_ns, nowNs)
    }

    /// The descriptor to wait on.
    public var wakeDescriptor: Int32 { segment.wakeDescriptor }

    /// Where the published records end. Every record is a multiple of 8 bytes, so odd bytes are damage; left
    /// in, they would wait to be read for ever and keep the consumer from sleeping.
    private func tail(slot: Int) -> UInt64 {
        unsafe lb_load_acquire(&segment.ring(slot).pointee.tail) & ~7
    }

    /// The next record's offset and header, checked against what the ring can hold.
    private mutating func recordHeader(slot: Int) -> (offset: Int, header: lb_record_header)? {
        let ringBytes = UInt64(segment.ringBytes)
        let tail = tail(slot: slot)
        let unread = tail &- cursors[slot]
        guard unread > 0 else { return nil }
        let offset = cursors[slot] & (ringBytes - 1)
        let limit = min(unread, ringBytes - offset, UInt64(LB_RECORD_BYTES_MAX))
        guard unread <= ringBytes else { return skip(slot: slot, to: tail) }
        let header = unsafe (segment.data(slot) + Int(offset)).loadUnaligned(as: lb_record_header.self)
        let isKnown = header.kind == recordTree || header.kind == recordRequest || header.kind == recordPad
        guard isKnown, header.size_bytes >= 8, header.size_bytes % 8 == 0, UInt64(header.size_bytes) <= limit
        else { return skip(slot: slot, to: tail) }
        return (Int(offset), header)
    }

    private mutating func skip(slot: Int, to tail: UInt64) -> (offset: Int, header: lb_record_header)? {
        corruptions += 1
        // An earlier skip that still waits goes with the same record, or with damage of its own behind it.
        let after = handedOut[slot]
        cursors[slot] = tail
        skipped[slot] = Skip(after: after, end: tail)
        if unsafe Self.isBehind(after, or: lb_load_relaxed(&segment.ring(slot).pointee.head)) {
            release(through: Position(slot: slot, count: tail))
        }
        return nil
    }
}
