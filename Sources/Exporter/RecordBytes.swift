/// Single bytes of a record, checked.
enum RecordBytes {
    /// Unsafe only in name: every bit pattern is a byte, and the offset is checked.
    @inline(__always)
    static func byte(_ record: RawSpan, at offset: Int) -> UInt8 {
        precondition(offset >= 0 && offset < record.byteCount)
        return unsafe record.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
    }

    /// Where a byte stands first in a range of a record.
    static func firstIndex(of wanted: UInt8, in record: RawSpan, _ range: Range<Int>) -> Int? {
        range.first { byte(record, at: $0) == wanted }
    }
}
