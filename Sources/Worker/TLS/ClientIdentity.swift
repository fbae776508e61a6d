/// Who a client is by its certificate, as backends are told: in fields of the names that nginx's and HAProxy's manuals
/// give them, which no client can send past this proxy where certificates are asked for.
struct ClientIdentity {
    /// The longest subject that is passed on; a longer one is left out.
    static let subjectBytesMax = 2048

    /// As RFC 4514 writes it, printable ASCII.
    var subject: [UInt8]
    /// SHA-256 of the certificate.
    var fingerprint: [UInt8]

    /// For a client that has shown none.
    static let noneLines = Array("X-SSL-Client-Verify: NONE\r\n".utf8)

    var fieldLines: [UInt8] {
        var lines = Array("X-SSL-Client-Verify: SUCCESS\r\n".utf8)
        if !subject.isEmpty { lines += Array("X-SSL-Client-S-DN: ".utf8) + subject + Array("\r\n".utf8) }
        lines += Array("X-SSL-Client-Fingerprint: ".utf8)
        for byte in fingerprint { lines += [Self.hexDigits[Int(byte >> 4)], Self.hexDigits[Int(byte & 15)]] }
        return lines + Array("\r\n".utf8)
    }

    private static let hexDigits = Array("0123456789abcdef".utf8)
}
