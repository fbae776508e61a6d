/// Parses the field lines of a head or trailer section (RFC 9112 §5).
///
/// Refused, never repaired: a line that ends without CRLF, white space before the colon or at a line's
/// start (obs-fold), an empty name, control bytes in a value. Incomplete input is told apart from wrong
/// input, and the same bytes give the same verdict however they arrive.
enum FieldSection {
    enum Outcome: Equatable {
        /// The section ended; the first byte behind its empty line.
        case complete(end: Int)
        case incomplete
        case malformed
        case tooManyFields
    }

    /// - Parameters:
    ///   - bytes: The message from its first byte.
    ///   - start: Where the first field line (or the empty line) begins.
    ///   - table: Filled with the lines; the caller has reset it.
    ///   - fieldsMax: Refuses more lines than this.
    static func parse(_ bytes: Span<UInt8>, from start: Int, into table: FieldTable, fieldsMax: Int) -> Outcome {
        var index = start
        while index < bytes.count {
            if bytes[index] == 0x0D { return endOfSection(bytes, at: index) }
            guard table.lines.count < fieldsMax else { return .tooManyFields }
            switch parseLine(bytes, at: index) {
            case .line(let line):
                table.append(line)
                index = Int(line.end)
            case .incomplete: return .incomplete
            case .malformed: return .malformed
            }
        }
        return .incomplete
    }

    private enum LineOutcome {
        case line(FieldLine)
        case incomplete
        case malformed
    }

    private static func endOfSection(_ bytes: Span<UInt8>, at index: Int) -> Outcome {
        guard index + 1 < bytes.count else { return .incomplete }
        return bytes[index + 1] == 0x0A ? .complete(end: index + 2) : .malformed
    }

    @inline(__always)
    private static func parseLine(_ bytes: Span<UInt8>, at start: Int) -> LineOutcome {
        var index = bytes.endOfToken(from: start)
        guard index < bytes.count else { return .incomplete }
        guard bytes[index] == UInt8(ascii: ":"), index > start, index - start <= Int(UInt16.max) else {
            return .malformed
        }
        let nameEnd = index
        index += 1
        while index < bytes.count, bytes[index] == 0x20 || bytes[index] == 0x09 { index += 1 }
        let valueStart = index
        index = bytes.endOfFieldText(from: index)
        guard index < bytes.count else { return .incomplete }
        guard bytes[index] == 0x0D else { return .malformed }
        guard index + 1 < bytes.count else { return .incomplete }
        guard bytes[index + 1] == 0x0A else { return .malformed }
        var valueEnd = index
        while valueEnd > valueStart, bytes[valueEnd - 1] == 0x20 || bytes[valueEnd - 1] == 0x09 { valueEnd -= 1 }
        return .line(
            FieldLine(
                start: UInt32(start), end: UInt32(index + 2), valueStart: UInt32(valueStart),
                valueEnd: UInt32(valueEnd), nameCount: UInt16(nameEnd - start),
                known: KnownField.named(bytes.extracting(start..<nameEnd))))
    }
}

/// Walks the members of a comma-separated list value (RFC 9110 §5.6.1), empty members left out.
struct ListMembers {
    private var index: Int
    private let end: Int

    init(_ value: Range<Int>) {
        index = value.lowerBound
        end = value.upperBound
    }

    mutating func next(in bytes: Span<UInt8>) -> Range<Int>? {
        while index < end {
            var memberEnd = index
            while memberEnd < end, bytes[memberEnd] != UInt8(ascii: ",") { memberEnd += 1 }
            let member = Self.trimmed(index..<memberEnd, in: bytes)
            index = memberEnd + 1
            if !member.isEmpty { return member }
        }
        return nil
    }

    private static func trimmed(_ range: Range<Int>, in bytes: Span<UInt8>) -> Range<Int> {
        var low = range.lowerBound
        var high = range.upperBound
        while low < high, bytes[low] == 0x20 || bytes[low] == 0x09 { low += 1 }
        while high > low, bytes[high - 1] == 0x20 || bytes[high - 1] == 0x09 { high -= 1 }
        return low..<high
    }
}
