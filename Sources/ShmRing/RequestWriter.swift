import CShims

/// Writes the facts of one usual request into reserved ring memory: a record of the kind LB_RECORD_REQUEST, a
/// quarter of the size of the tree that it stands for.
///
/// `append` takes the texts in the order of their lengths in `lb_request_header`; a text may come in pieces.
/// `RingProducer.publish` ends it. No call writes outside the reservation.
@safe
public struct RequestWriter: ~Copyable {
    private let start: UnsafeMutableRawPointer
    private let capacityBytes: Int
    private var used = MemoryLayout<lb_request_header>.size
    private var allWords: UInt64 = 0

    /// - Parameters:
    ///   - start: 8-aligned memory that nobody else touches.
    ///   - capacityBytes: At least `bytes(texts: 0)`.
    init(start: UnsafeMutableRawPointer, capacityBytes: Int) {
        precondition(capacityBytes >= Self.bytes(texts: 0))
        unsafe self.start = start
        self.capacityBytes = capacityBytes
    }

    /// Size of a record whose texts take `texts` bytes. The bytes behind the texts let a reader take the last one in
    /// large pieces.
    static func bytes(texts: Int) -> Int {
        (MemoryLayout<lb_request_header>.size + texts + Int(LB_REQUEST_TAIL_BYTES) + 7) & ~7
    }

    /// Whether every text was ASCII. Another one must be repaired, which only a `TreeWriter` does.
    public var isASCII: Bool { allWords & 0x8080_8080_8080_8080 == 0 }

    /// Copies eight bytes a step, the last eight overlapping those before.
    public mutating func append(_ text: Span<UInt8>) {
        let count = text.count
        precondition(count <= capacityBytes - Int(LB_REQUEST_TAIL_BYTES) - used, "more text than was reserved")
        let place = unsafe start + used
        used += count
        guard count >= 8 else {
            for index in 0..<count {
                allWords |= UInt64(text[index])
                unsafe place.storeBytes(of: text[index], toByteOffset: index, as: UInt8.self)
            }
            return
        }
        var offset = 0
        while true {
            let word = unsafe text.bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)
            unsafe place.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
            allWords |= word
            if offset == count - 8 { return }
            offset = min(offset + 8, count - 8)
        }
    }

    public mutating func append(string text: String) { append(text.utf8.span) }

    public mutating func append(_ text: StaticString) {
        let count = text.utf8CodeUnitCount
        precondition(count <= capacityBytes - Int(LB_REQUEST_TAIL_BYTES) - used, "more text than was reserved")
        unsafe (start + used).copyMemory(from: text.utf8Start, byteCount: count)
        used += count
    }

    /// Completes the record.
    /// - Returns: Its size in bytes.
    consuming func finish(_ facts: lb_request_header) -> Int {
        let total = Self.bytes(texts: used - MemoryLayout<lb_request_header>.size)
        precondition(total <= capacityBytes)
        unsafe (start + used).storeBytes(of: SIMD2<UInt64>.zero, as: SIMD2<UInt64>.self)
        unsafe (start + (total - 8)).storeBytes(of: 0, as: UInt64.self)
        unsafe start.storeBytes(of: facts, as: lb_request_header.self)
        let record = lb_record_header(size_bytes: UInt32(total), kind: UInt16(LB_RECORD_REQUEST), reserved: 0)
        unsafe start.storeBytes(of: record, as: lb_record_header.self)
        return total
    }
}
