import CShims
import Glibc

@testable import ShmRing

// Trees with a number in them, and hands that reach into a segment's memory to damage it. Unsafe: writes
// anywhere in a ring's header and data, as a broken process could.

/// A tree that is made from a number alone, so that a reader can tell whether it arrived whole.
enum NumberedTree {
    /// More than any of these trees takes.
    static let bytesMax = 2048

    /// - Returns: Whether there was room.
    @discardableResult
    static func publish(_ number: UInt64, to producer: inout RingProducer) -> Bool {
        guard var writer = producer.reserve(bytesMax: bytesMax) else { return false }
        write(number, to: &writer)
        producer.publish(writer)
        return true
    }

    static func write(_ number: UInt64, to writer: inout TreeWriter) {
        let state: [UInt8] = []
        writer.begin(
            traceID: (number, ~number), parentSpanID: number, traceFlags: 1, baseUnixNs: number &* 3,
            traceState: state.span)
        for index in 0...(number % 4) {
            writer.beginSpan(
                .backendRequest, kind: .client, id: number << 8 | index, parent: index == 0 ? nil : Int(index) - 1,
                startOffsetNs: index, endOffsetNs: number)
            writer.attribute(.httpStatusCode, Int(number % 600))
            writer.attribute(.httpURL, text: text(number, index).span)
        }
    }

    /// The number of a tree that is what `write` makes of that number; nil for anything else.
    static func number(of record: RawSpan) -> UInt64? {
        guard let tree = TreeReading(record), !tree.isMalformed else { return nil }
        let number = tree.traceIDHigh
        guard tree.traceIDLow == ~number, tree.parentSpanID == number, tree.baseUnixNs == number &* 3,
            tree.spans.count == Int(number % 4) + 1
        else { return nil }
        for (index, span) in tree.spans.enumerated() {
            let url = String(decoding: text(number, UInt64(index)), as: UTF8.self)
            guard span.id == number << 8 | UInt64(index), span.attributes.count == 2,
                tree.value(.httpStatusCode, span: index) == .int(Int64(number % 600)),
                tree.value(.httpURL, span: index) == .text(url)
            else { return nil }
        }
        return number
    }

    private static func text(_ number: UInt64, _ index: UInt64) -> [UInt8] {
        [UInt8](repeating: UInt8(ascii: "a") + UInt8((number &+ index) % 26), count: Int((number &* 37) % 311))
    }
}

extension SegmentConsumer {
    /// The next tree's number and position; nil where the ring is empty. `number` is nil for a tree that is
    /// not whole.
    mutating func nextNumber(slot: Int = 0) -> (number: UInt64?, end: Position)? {
        next(slot: slot) { NumberedTree.number(of: $0) }.map { ($0.result, $0.end) }
    }

    /// All that waits, released as it is read.
    mutating func drain(slot: Int = 0) -> [UInt64?] {
        var numbers: [UInt64?] = []
        while let (number, end) = nextNumber(slot: slot) {
            numbers.append(number)
            release(through: end)
        }
        return numbers
    }
}

extension SpanSegment {
    /// A segment with the smallest rings there are: 128 KiB.
    static func small(rings: Int = 1) -> SpanSegment {
        do {
            return try SpanSegment(ringCount: rings, ringBytesMin: 0, generation: 7, masterPID: getpid())
        } catch {
            fatalError("\(error)")
        }
    }

    func tail(slot: Int = 0) -> UInt64 { unsafe lb_load_acquire(&ring(slot).pointee.tail) }
    func head(slot: Int = 0) -> UInt64 { unsafe lb_load_acquire(&ring(slot).pointee.head) }
    func setTail(_ count: UInt64, slot: Int = 0) { unsafe lb_store_release(&ring(slot).pointee.tail, count) }
    func setHead(_ count: UInt64, slot: Int = 0) { unsafe lb_store_release(&ring(slot).pointee.head, count) }

    /// Overwrites ring data, wrapping at its end.
    func overwrite(_ bytes: [UInt8], at count: UInt64, slot: Int = 0) {
        for (index, byte) in bytes.enumerated() {
            let offset = Int((count &+ UInt64(index)) & UInt64(ringBytes - 1))
            unsafe data(slot).storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
        }
    }

    /// Overwrites ring data with one record header.
    func overwrite(sizeBytes: UInt32, kind: UInt16, at count: UInt64, slot: Int = 0) {
        overwrite(
            (0..<4).map { UInt8(truncatingIfNeeded: sizeBytes >> ($0 * 8)) }
                + [UInt8(truncatingIfNeeded: kind), UInt8(truncatingIfNeeded: kind >> 8), 0, 0], at: count, slot: slot)
    }

    /// Makes both counts start elsewhere, as if the ring had been used for a long time.
    func startCounts(at count: UInt64, slot: Int = 0) {
        setHead(count, slot: slot)
        setTail(count, slot: slot)
    }
}

/// Runs `body` on a thread of its own.
/// - Returns: What waits for it to end.
@safe
func onThread(_ body: @escaping () -> Void) -> () -> Void {
    final class Work {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    // Retained here, released by the thread.
    let work = unsafe Unmanaged.passRetained(Work(body)).toOpaque()
    let result = unsafe pthread_create(
        &thread, nil,
        { raw in
            unsafe Unmanaged<Work>.fromOpaque(raw!).takeRetainedValue().body()
            return nil
        }, work)
    precondition(result == 0, "pthread_create: \(Errno(result))")
    return { pthread_join(thread, nil) }
}
