import CShims

/// The proof that a server has read a WebSocket's opening handshake (RFC 6455 §4.2.2): Base64 of the SHA-1 of the
/// client's key and a constant. Over HTTP/2 there is no key (RFC 8441 §5), so it is made here for a client of HTTP/1.1.
/// Unsafe: OpenSSL reads and writes arrays.
enum WebSocketAccept {
    private static let constant = Array("258EAFA5-E914-47DA-95CA-C5AB0DC85B11".utf8)
    private static let digestBytes = 20
    private static let textBytes = 28

    static func value(for key: [UInt8]) -> [UInt8] {
        let message = key + constant
        var digest = [UInt8](repeating: 0, count: digestBytes)
        _ = unsafe SHA1(message, message.count, &digest)
        // OpenSSL writes a 0 behind the text.
        var text = [UInt8](repeating: 0, count: textBytes + 1)
        _ = unsafe EVP_EncodeBlock(&text, digest, Int32(digestBytes))
        return Array(text.dropLast())
    }
}
