/// A JSON text (RFC 8259) from somebody who may send anything: small, bounded in depth, no numbers computed.
enum JSONValue: Equatable {
    case null
    case bool(Bool)
    /// As it was written.
    case number(String)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    private static let depthMax = 32

    /// Nil when the bytes are not one JSON text.
    init?(parsing bytes: [UInt8]) {
        var scanner = Scanner(rest: bytes[...])
        guard let value = scanner.value(depth: 0) else { return nil }
        scanner.skipSpace()
        guard scanner.rest.isEmpty else { return nil }
        self = value
    }

    private struct Scanner {
        var rest: ArraySlice<UInt8>

        mutating func skipSpace() {
            rest = rest.drop { $0 == 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
        }

        mutating func value(depth: Int) -> JSONValue? {
            skipSpace()
            guard depth < JSONValue.depthMax, let first = rest.first else { return nil }
            switch first {
            case UInt8(ascii: "{"): return object(depth: depth)
            case UInt8(ascii: "["): return array(depth: depth)
            case UInt8(ascii: "\""): return string().map { .string($0) }
            case UInt8(ascii: "t"): return take("true") ? .bool(true) : nil
            case UInt8(ascii: "f"): return take("false") ? .bool(false) : nil
            case UInt8(ascii: "n"): return take("null") ? .null : nil
            default: return number()
            }
        }

        private mutating func take(_ text: String) -> Bool {
            guard rest.starts(with: text.utf8) else { return false }
            rest = rest.dropFirst(text.utf8.count)
            return true
        }

        private mutating func object(depth: Int) -> JSONValue? {
            var members: [String: JSONValue] = [:]
            let isClosed = list(closedBy: "}") { scanner in
                scanner.skipSpace()
                guard let key = scanner.string() else { return false }
                scanner.skipSpace()
                guard scanner.take(":"), let value = scanner.value(depth: depth + 1) else { return false }
                members[key] = value
                return true
            }
            return isClosed ? .object(members) : nil
        }

        private mutating func array(depth: Int) -> JSONValue? {
            var elements: [JSONValue] = []
            let isClosed = list(closedBy: "]") { scanner in
                guard let value = scanner.value(depth: depth + 1) else { return false }
                elements.append(value)
                return true
            }
            return isClosed ? .array(elements) : nil
        }

        /// An opening bracket, elements between commas, the closing bracket.
        private mutating func list(closedBy end: String, element: (inout Scanner) -> Bool) -> Bool {
            rest = rest.dropFirst()
            skipSpace()
            if take(end) { return true }
            while element(&self) {
                skipSpace()
                if take(end) { return true }
                guard take(",") else { return false }
            }
            return false
        }

        private mutating func number() -> JSONValue? {
            let digits = rest.prefix { byte in
                (byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")) || "+-.eE".utf8.contains(byte)
            }
            guard !digits.isEmpty else { return nil }
            rest = rest.dropFirst(digits.count)
            return .number(String(decoding: digits, as: UTF8.self))
        }

        private mutating func string() -> String? {
            guard take("\"") else { return nil }
            var text: [UInt8] = []
            while let byte = rest.popFirst() {
                switch byte {
                case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
                case UInt8(ascii: "\\"):
                    guard let escaped = escape() else { return nil }
                    text += escaped
                case 0..<0x20: return nil
                default: text.append(byte)
                }
            }
            return nil
        }

        /// What stands behind a backslash. A lone surrogate becomes U+FFFD.
        private mutating func escape() -> [UInt8]? {
            switch rest.popFirst() {
            case UInt8(ascii: "\""): return [0x22]
            case UInt8(ascii: "\\"): return [0x5C]
            case UInt8(ascii: "/"): return [0x2F]
            case UInt8(ascii: "b"): return [0x08]
            case UInt8(ascii: "f"): return [0x0C]
            case UInt8(ascii: "n"): return [0x0A]
            case UInt8(ascii: "r"): return [0x0D]
            case UInt8(ascii: "t"): return [0x09]
            case UInt8(ascii: "u"): return utf16Escape()
            default: return nil
            }
        }

        private mutating func utf16Escape() -> [UInt8]? {
            guard let first = hexUnit() else { return nil }
            guard UTF16.isLeadSurrogate(first), rest.starts(with: [UInt8(ascii: "\\"), UInt8(ascii: "u")]) else {
                return Array(String(decoding: [first], as: UTF16.self).utf8)
            }
            rest = rest.dropFirst(2)
            return hexUnit().map { Array(String(decoding: [first, $0], as: UTF16.self).utf8) }
        }

        private mutating func hexUnit() -> UInt16? {
            let digits = rest.prefix(4)
            guard digits.count == 4, digits.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }) else { return nil }
            rest = rest.dropFirst(4)
            return UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
        }
    }
}
