/// `key1=value1,key2=value2` with percent-encoding, as OTEL_RESOURCE_ATTRIBUTES and
/// OTEL_EXPORTER_OTLP_HEADERS are written (OpenTelemetry Resource SDK, "Specifying resource information via
/// an environment variable"; W3C Baggage §3.2.1).
///
/// One member that cannot be read makes the whole text worthless, as the specification asks for.
enum KeyValueList {
    typealias Member = (key: String, value: String)

    /// - Returns: The members in their order; of equal keys the last one only.
    /// - Throws: What is wrong with the first bad member.
    static func parse(_ text: String) throws(BadValue) -> [Member] {
        var members: [Member] = []
        for part in text.split(separator: ",") {
            guard let member = try member(part) else { continue }
            members.removeAll { $0.key == member.key }
            members.append(member)
        }
        return members
    }

    /// - Returns: Nil for a member of white space only.
    private static func member(_ part: Substring) throws(BadValue) -> Member? {
        guard part.contains(where: { !$0.isWhitespace }) else { return nil }
        let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard sides.count == 2 else { throw BadValue("\"\(part)\" is not key=value") }
        guard let key = percentDecoded(trimmed(sides[0])), let value = percentDecoded(trimmed(sides[1])) else {
            throw BadValue("\"\(part)\" is not percent-encoded UTF-8")
        }
        guard !key.isEmpty else { throw BadValue("\"\(part)\" has an empty key") }
        return (key, value)
    }

    private static func trimmed(_ text: Substring) -> Substring {
        let start = text.drop { $0.isWhitespace }
        return start.prefix(upTo: start.lastIndex { !$0.isWhitespace }.map { start.index(after: $0) } ?? start.endIndex)
    }

    /// RFC 3986 §2.1.
    /// - Returns: Nil when an escape is incomplete or the result is not UTF-8.
    static func percentDecoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = hexValue(rest.popFirst()), let low = hexValue(rest.popFirst()) else { return nil }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func hexValue(_ byte: UInt8?) -> UInt8? {
        switch byte {
        case let digit? where (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit): digit - UInt8(ascii: "0")
        case let letter? where (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(letter | 0x20):
            (letter | 0x20) - UInt8(ascii: "a") + 10
        default: nil
        }
    }
}
