import ShmRing

/// `HOST:PORT` and `[IPv6]:PORT` taken apart (RFC 3986 §3.2), for backends and the collector.
struct HostPort: Equatable {
    /// A literal without brackets, or a name in lower case.
    let host: String
    /// Nil when there was none.
    let port: UInt16?
    let isBracketed: Bool

    /// - Parameter text: Such as "127.0.0.1:9001", "[::1]:9001" or "backend.example:80".
    init(_ text: String) throws(BadValue) {
        let (host, port) = try Self.split(text)
        self.port = try port.map { (text) throws(BadValue) in try Self.port(text) }
        isBracketed = host.hasPrefix("[")
        self.host = isBracketed ? String(host.dropFirst().dropLast()) : host.lowercased()
        try checkHost()
    }

    /// True when the host is an address and needs no resolver.
    var isLiteral: Bool { SocketAddress(ip: host, port: 0) != nil }

    private static func split(_ text: String) throws(BadValue) -> (host: String, port: Substring?) {
        if text.hasPrefix("[") { return try splitBracketed(text) }
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count <= 2 else {
            throw BadValue("write an IPv6 address in brackets, such as [::1]:9001")
        }
        return (String(parts[0]), parts.count == 2 ? parts[1] : nil)
    }

    private static func splitBracketed(_ text: String) throws(BadValue) -> (host: String, port: Substring?) {
        guard let end = text.firstIndex(of: "]") else {
            throw BadValue("the closing bracket is missing; write it like [::1]:9001")
        }
        let rest = text[text.index(after: end)...]
        guard rest.isEmpty || rest.hasPrefix(":") else {
            throw BadValue("only :PORT may follow the bracket; write it like [::1]:9001")
        }
        return (String(text[...end]), rest.isEmpty ? nil : rest.dropFirst())
    }

    private static func port(_ text: Substring) throws(BadValue) -> UInt16 {
        guard let number = WholeNumber.parse(text), let port = UInt16(exactly: number), port > 0 else {
            throw BadValue("the port must be a number from 1 to 65535")
        }
        return port
    }

    private func checkHost() throws(BadValue) {
        guard !host.isEmpty else { throw BadValue("the host is missing; write HOST:PORT") }
        guard !isBracketed || (host.contains(":") && isLiteral) else {
            throw BadValue("what stands in the brackets is not an IPv6 address")
        }
        guard !isBracketed else { return }
        let looksLikeIPv4 = host.utf8.allSatisfy { $0 == UInt8(ascii: ".") || (48...57).contains($0) }
        guard !looksLikeIPv4 || isLiteral else {
            throw BadValue("the host is not an IPv4 address; each part is 0 to 255")
        }
        guard host.utf8.count <= 253, host.utf8.allSatisfy(Self.isNameByte) else {
            throw BadValue("the host may only have letters, digits, dots, hyphens and underscores")
        }
    }

    /// Letters, digits and hyphens (RFC 1123 §2.1), and the underscore that container names have.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"): true
        default: false
        }
    }
}
