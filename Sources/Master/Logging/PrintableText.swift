/// Makes text that comes from anywhere fit for one line of a log or a terminal.
enum PrintableText {
    /// The text with every scalar escaped that could end the line, move the cursor or reorder what is shown.
    static func escaped(_ text: String) -> String {
        guard !text.unicodeScalars.allSatisfy(isPlain) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            result += isPlain(scalar) ? String(scalar) : escape(scalar)
        }
        return result
    }

    /// True for scalars that show as themselves: no control character (C0, DEL, C1), no line or paragraph
    /// separator, none that changes the direction of writing (Unicode Standard Annex 9).
    static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x00...0x1F, 0x7F...0x9F: false
        case 0x2028, 0x2029, 0x200E, 0x200F, 0x061C: false
        case 0x202A...0x202E, 0x2066...0x2069: false
        default: true
        }
    }

    /// A JSON escape (RFC 8259 §7), which logfmt readers understand as well.
    static func escape(_ scalar: Unicode.Scalar) -> String {
        switch scalar {
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        case "\"": return "\\\""
        case "\\": return "\\\\"
        default:
            let hex = String(scalar.value, radix: 16)
            return "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
        }
    }
}
