/// Makes bytes that claim to be text fit for OTLP, whose strings must be UTF-8.
///
/// Writers repair text before they record it, so this is for a broken writer only and may allocate.
enum UTF8Repair {
    static func isValid(_ bytes: Span<UInt8>) -> Bool {
        (try? UTF8Span(validating: bytes)) != nil
    }

    /// The text with U+FFFD in place of what is not UTF-8.
    /// - Parameters:
    ///   - record: Bytes that may change meanwhile: each is read once.
    ///   - range: The text's place in them; clamped.
    static func text(_ record: RawSpan, _ range: Range<Int>) -> String {
        let inside = range.clamped(to: 0..<record.byteCount)
        var copy: [UInt8] = []
        copy.reserveCapacity(inside.count)
        for offset in inside { copy.append(RecordBytes.byte(record, at: offset)) }
        return String(decoding: copy, as: UTF8.self)
    }
}
