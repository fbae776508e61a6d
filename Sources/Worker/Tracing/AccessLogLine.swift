import ShmRing

/// Writes the fields of one line as logfmt or JSON, escaping what could forge a field or a line.
struct LogLine {
    private let buffer: ByteBuffer
    private let isJSON: Bool
    private var isFirst = true

    init(_ buffer: ByteBuffer, isJSON: Bool) {
        self.buffer = buffer
        self.isJSON = isJSON
        if isJSON { buffer.append("{") }
    }

    mutating func number(_ key: StaticString, _ value: Int) {
        begin(key)
        buffer.append(decimal: value)
    }

    mutating func text(_ key: StaticString, _ value: StaticString) {
        quoted(key) { buffer in buffer.append(value) }
    }

    /// A text from outside.
    mutating func text(_ key: StaticString, _ value: Span<UInt8>) {
        begin(key)
        let quotes = isJSON || Self.needsQuotes(value)
        if quotes { buffer.append("\"") }
        for index in value.indices { escape(value[index]) }
        if quotes { buffer.append("\"") }
    }

    mutating func hex(_ key: StaticString, _ value: UInt64...) {
        quoted(key) { buffer in
            for part in value { buffer.append(hex: part, digits: 16) }
        }
    }

    mutating func peer(_ key: StaticString, _ peer: PeerName) {
        quoted(key) { buffer in
            let isIPv6 = peer.isIPv6
            if isIPv6 { buffer.append("[") }
            buffer.append(peer.ip)
            if isIPv6 { buffer.append("]") }
            buffer.append(":")
            buffer.append(decimal: Int(peer.port))
        }
    }

    /// RFC 3339 in UTC with microseconds.
    mutating func time(_ key: StaticString, unixNs: UInt64) {
        let date = CivilTime(unixNs: unixNs)
        quoted(key) { buffer in
            Self.pad(date.year, 4, buffer)
            buffer.append("-")
            Self.pad(date.month, 2, buffer)
            buffer.append("-")
            Self.pad(date.day, 2, buffer)
            buffer.append("T")
            Self.pad(date.hour, 2, buffer)
            buffer.append(":")
            Self.pad(date.minute, 2, buffer)
            buffer.append(":")
            Self.pad(date.second, 2, buffer)
            buffer.append(".")
            Self.pad(date.microsecond, 6, buffer)
            buffer.append("Z")
        }
    }

    func end() {
        buffer.append(isJSON ? "}\n" : "\n")
    }

    private static func pad(_ value: Int, _ digits: Int, _ buffer: ByteBuffer) {
        var divisor = 1
        for _ in 1..<digits { divisor *= 10 }
        while divisor > 0 {
            buffer.append(UInt8(ascii: "0") + UInt8(value / divisor % 10))
            divisor /= 10
        }
    }

    /// A value that JSON wants in quotation marks and logfmt does not.
    private mutating func quoted(_ key: StaticString, _ write: (ByteBuffer) -> Void) {
        begin(key)
        if isJSON { buffer.append("\"") }
        write(buffer)
        if isJSON { buffer.append("\"") }
    }

    private mutating func begin(_ key: StaticString) {
        if !isFirst { buffer.append(isJSON ? "," : " ") }
        isFirst = false
        if isJSON { buffer.append("\"") }
        buffer.append(key)
        buffer.append(isJSON ? "\":" : "=")
    }

    private static func needsQuotes(_ value: Span<UInt8>) -> Bool {
        for index in value.indices {
            let byte = value[index]
            if byte <= 0x20 || byte >= 0x7F || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "=")
                || byte == UInt8(ascii: "\\")
            {
                return true
            }
        }
        return value.isEmpty
    }

    private func escape(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            buffer.append("\\")
            buffer.append(byte)
        case 0x20..<0x7F:
            buffer.append(byte)
        default:
            buffer.append("\\u00")
            buffer.append(hex: UInt64(byte), digits: 2)
        }
    }
}
