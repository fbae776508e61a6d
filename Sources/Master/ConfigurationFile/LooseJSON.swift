/// One value of a JSON text that a person wrote, and where it stands, so that errors can point at it.
struct JSONNode: Equatable {
    enum Value: Equatable {
        case null
        case bool(Bool)
        /// As it was written: 0.1 must not become a binary fraction on its way.
        case number(String)
        case string(String)
        case array([JSONNode])
        /// In the order of the text; keys may repeat.
        case object([Member])
    }

    struct Member: Equatable {
        let key: String
        /// Of the key, in bytes from the beginning of the text.
        let offset: Int
        let node: JSONNode
    }

    let value: Value
    /// In bytes from the beginning of the text.
    let offset: Int
}

/// Where a JSON text stops being one.
struct JSONSyntaxError: Error, Equatable {
    let message: String
    /// In bytes from the beginning of the text.
    let offset: Int
}

/// Parses JSON (RFC 8259) with what makes it bearable to write by hand, as in JSON5: `//` and `/* */` comments,
/// a comma behind the last element, keys without quotes, texts in single quotes. Numbers are plain JSON.
///
/// The text may be anything: depth is bounded, and nothing is read twice, so the time is linear.
struct LooseJSONParser {
    static let depthMax = 32

    private let bytes: [UInt8]
    private var offset = 0

    static func parse(_ text: String) throws(JSONSyntaxError) -> JSONNode {
        var parser = LooseJSONParser(bytes: Array(text.utf8))
        if parser.bytes.starts(with: "\u{FEFF}".utf8) { parser.offset = 3 }
        let root = try parser.node(depth: 0)
        try parser.skipBlanks()
        guard parser.next == nil else { throw parser.unexpected("the end of the file") }
        return root
    }

    private init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    // MARK: Values

    private mutating func node(depth: Int) throws(JSONSyntaxError) -> JSONNode {
        try skipBlanks()
        let start = offset
        guard depth < Self.depthMax else { throw error("brackets are nested more than \(Self.depthMax) deep") }
        return JSONNode(value: try value(depth: depth), offset: start)
    }

    private mutating func value(depth: Int) throws(JSONSyntaxError) -> JSONNode.Value {
        switch next {
        case UInt8(ascii: "{"): .object(try members(depth: depth))
        case UInt8(ascii: "["): .array(try elements(depth: depth))
        case UInt8(ascii: "\""), UInt8(ascii: "'"): .string(try string())
        case UInt8(ascii: "-"), .some(UInt8(ascii: "0")...UInt8(ascii: "9")): .number(try number())
        default: try keyword()
        }
    }

    private mutating func keyword() throws(JSONSyntaxError) -> JSONNode.Value {
        let start = offset
        switch word() {
        case "null": return .null
        case "true": return .bool(true)
        case "false": return .bool(false)
        default:
            offset = start
            throw unexpected("a value")
        }
    }

    private mutating func elements(depth: Int) throws(JSONSyntaxError) -> [JSONNode] {
        var elements: [JSONNode] = []
        offset += 1
        while try !isClosed(by: "]", isFirst: elements.isEmpty) {
            elements.append(try node(depth: depth + 1))
        }
        return elements
    }

    private mutating func members(depth: Int) throws(JSONSyntaxError) -> [JSONNode.Member] {
        var members: [JSONNode.Member] = []
        offset += 1
        while try !isClosed(by: "}", isFirst: members.isEmpty) {
            let start = offset
            let key = try key()
            try skipBlanks()
            guard take(":") else { throw unexpected("a colon") }
            members.append(.init(key: key, offset: start, node: try node(depth: depth + 1)))
        }
        return members
    }

    /// Takes the comma between two elements, and the bracket behind the last one.
    private mutating func isClosed(by bracket: Unicode.Scalar, isFirst: Bool) throws(JSONSyntaxError) -> Bool {
        try skipBlanks()
        if take(bracket) { return true }
        guard !isFirst else { return false }
        guard take(",") else { throw unexpected("a comma or \(bracket)") }
        try skipBlanks()
        return take(bracket)
    }

    private mutating func key() throws(JSONSyntaxError) -> String {
        if next == UInt8(ascii: "\"") || next == UInt8(ascii: "'") { return try string() }
        let start = offset
        let key = word()
        guard let first = key.utf8.first, first > UInt8(ascii: "9") || first == UInt8(ascii: "$") else {
            offset = start
            throw unexpected("a key")
        }
        return key
    }

    /// Letters, digits, `_` and `$`.
    private mutating func word() -> String {
        take { byte in
            switch byte | 0x20 {
            case UInt8(ascii: "a")...UInt8(ascii: "z"): true
            default: (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == 0x5F || byte == 0x24
            }
        }
    }

    /// RFC 8259 §6.
    private mutating func number() throws(JSONSyntaxError) -> String {
        let start = offset
        _ = take("-")
        if !take("0") { try digits() }
        if take(".") { try digits() }
        if take("e") || take("E") {
            _ = take("+") || take("-")
            try digits()
        }
        return String(decoding: bytes[start..<offset], as: UTF8.self)
    }

    private mutating func digits() throws(JSONSyntaxError) {
        guard !take(while: { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }).isEmpty else {
            throw unexpected("a digit")
        }
    }

    // MARK: Texts

    private mutating func string() throws(JSONSyntaxError) -> String {
        let start = offset
        let quote = bytes[offset]
        offset += 1
        var text: [UInt8] = []
        while let byte = next, byte != quote {
            guard byte >= 0x20 else { throw error("a line break or control character stands in a text") }
            offset += 1
            if byte == UInt8(ascii: "\\") { text += try escape() } else { text.append(byte) }
        }
        guard next == quote else {
            offset = start
            throw error("the text that begins here has no end")
        }
        offset += 1
        return String(decoding: text, as: UTF8.self)
    }

    /// What stands behind a backslash.
    private mutating func escape() throws(JSONSyntaxError) -> [UInt8] {
        guard let byte = next else { return [] }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "f"): return [0x0C]
        case UInt8(ascii: "n"): return [0x0A]
        case UInt8(ascii: "r"): return [0x0D]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "u"): return Array(String(try unicodeEscape()).utf8)
        default: throw error("\\ is followed by what is no escape; write \\\\ for a backslash", at: offset - 2)
        }
    }

    private mutating func unicodeEscape() throws(JSONSyntaxError) -> Unicode.Scalar {
        let start = offset - 2
        var units = [try hexUnit()]
        if UTF16.isLeadSurrogate(units[0]), take("\\"), take("u") { units.append(try hexUnit()) }
        // NUL would end a path early for the kernel.
        guard let text = String(validating: units, as: UTF16.self), let scalar = text.unicodeScalars.first,
            scalar.value != 0
        else { throw error("this escape is no character", at: start) }
        return scalar
    }

    private mutating func hexUnit() throws(JSONSyntaxError) -> UInt16 {
        let digits = bytes[offset...].prefix(4)
        guard digits.count == 4, digits.allSatisfy({ Unicode.Scalar($0).properties.isASCIIHexDigit }),
            let unit = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw unexpected("four hexadecimal digits") }
        offset += 4
        return unit
    }

    // MARK: Bytes

    private var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard next == UInt8(ascii: scalar) else { return false }
        offset += 1
        return true
    }

    private mutating func take(while isWanted: (UInt8) -> Bool) -> String {
        let taken = bytes[offset...].prefix(while: isWanted)
        offset += taken.count
        return String(decoding: taken, as: UTF8.self)
    }

    /// Space, line breaks and comments.
    private mutating func skipBlanks() throws(JSONSyntaxError) {
        while let byte = next {
            switch byte {
            case 0x20, 0x09, 0x0A, 0x0D: offset += 1
            case UInt8(ascii: "/"): try skipComment()
            default: return
            }
        }
    }

    private mutating func skipComment() throws(JSONSyntaxError) {
        let rest = bytes[(offset + 1)...]
        switch rest.first {
        case UInt8(ascii: "/"): offset = rest.firstIndex(of: 0x0A) ?? bytes.count
        case UInt8(ascii: "*"):
            var end = offset + 3
            while end < bytes.count, bytes[end - 1] != UInt8(ascii: "*") || bytes[end] != UInt8(ascii: "/") { end += 1 }
            guard end < bytes.count else { throw error("the comment that begins here has no end") }
            offset = end + 1
        default: throw unexpected("a value, a comma or a bracket")
        }
    }

    private func error(_ message: String, at place: Int? = nil) -> JSONSyntaxError {
        JSONSyntaxError(message: message, offset: place ?? offset)
    }

    private func unexpected(_ wanted: String) -> JSONSyntaxError {
        guard offset < bytes.count else { return error("the file ends where \(wanted) was expected") }
        // Up to the next character that separates, so that a misspelt word shows as one.
        let shown = bytes[offset...].prefix { $0 > 0x20 && !",:{}[]\"'".utf8.contains($0) }.prefix(20)
        let text = String(decoding: shown.isEmpty ? bytes[offset...offset] : shown, as: UTF8.self)
        return error("\(text) stands where \(wanted) was expected")
    }
}
