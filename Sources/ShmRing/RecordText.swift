/// Makes bytes from the network fit for a trace: valid UTF-8 within a limit.
enum RecordText {
    /// True when every byte is below 0x80, so that the bytes can be copied as they are.
    static func isASCII(_ bytes: Span<UInt8>) -> Bool {
        var all: UInt64 = 0
        var index = 0
        while index + 8 <= bytes.count {
            all |= unsafe bytes.bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self)
            index += 8
        }
        while index < bytes.count {
            all |= UInt64(bytes[index])
            index += 1
        }
        return all & 0x8080_8080_8080_8080 == 0
    }

    /// Valid UTF-8 of at most `bytesMax` bytes: bytes that are not UTF-8 become `%XX`, and a cut falls
    /// on a character's boundary (The Unicode Standard, table 3-7: well-formed byte sequences).
    static func sanitized(_ bytes: Span<UInt8>, bytesMax: Int) -> (text: [UInt8], isCut: Bool) {
        var text: [UInt8] = []
        text.reserveCapacity(min(bytes.count, bytesMax))
        var index = 0
        while index < bytes.count {
            let length = characterLength(bytes, at: index)
            guard text.count + (length == 0 ? 3 : length) <= bytesMax else { return (text, true) }
            if length == 0 {
                appendEscaped(bytes[index], to: &text)
                index += 1
            } else {
                for offset in 0..<length { text.append(bytes[index + offset]) }
                index += length
            }
        }
        return (text, false)
    }

    private static func appendEscaped(_ byte: UInt8, to text: inout [UInt8]) {
        text.append(UInt8(ascii: "%"))
        text.append(hexDigit(byte >> 4))
        text.append(hexDigit(byte & 15))
    }

    private static func hexDigit(_ value: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "A") + value - 10
    }

    /// Length of the well-formed UTF-8 sequence at `index`, or 0 when there is none.
    private static func characterLength(_ bytes: Span<UInt8>, at index: Int) -> Int {
        let first = bytes[index]
        func continues(_ offset: Int, from low: UInt8 = 0x80, to high: UInt8 = 0xBF) -> Bool {
            index + offset < bytes.count && bytes[index + offset] >= low && bytes[index + offset] <= high
        }
        switch first {
        case 0x00...0x7F: return 1
        case 0xC2...0xDF: return continues(1) ? 2 : 0
        case 0xE0: return continues(1, from: 0xA0) && continues(2) ? 3 : 0
        case 0xE1...0xEC, 0xEE...0xEF: return continues(1) && continues(2) ? 3 : 0
        case 0xED: return continues(1, to: 0x9F) && continues(2) ? 3 : 0
        case 0xF0: return continues(1, from: 0x90) && continues(2) && continues(3) ? 4 : 0
        case 0xF1...0xF3: return continues(1) && continues(2) && continues(3) ? 4 : 0
        case 0xF4: return continues(1, to: 0x8F) && continues(2) && continues(3) ? 4 : 0
        default: return 0
        }
    }
}
