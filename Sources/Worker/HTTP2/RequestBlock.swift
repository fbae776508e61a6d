/// Turns the fields of one HTTP/2 request into an HTTP/1.1 head (RFC 9113 §8.3.1, §8.2).
///
/// libnghttp2 has refused upper case, fields that belong to one connection, pseudo-header fields in the wrong
/// place, and bad bytes; what it lets through is judged here again where HTTP/1.1 would read it differently, and
/// once more by `RequestParser`, which reads the result. One block at a time: a connection never interleaves two.
///
///     begin ──► field … field ──► writeHead ──► end
final class RequestBlock {
    /// Why the request must not go on.
    enum Refusal: Equatable {
        /// Reset the stream with PROTOCOL_ERROR.
        case malformed
        /// Answer 431.
        case tooLarge
    }

    private let buffers: BufferPool
    private let bytesMax: Int
    private let pseudo = PooledText()
    private let fields = PooledText()
    private let cookies = PooledText()
    private var methodText: Range<Int>?
    private var path: Range<Int>?
    private var scheme: Range<Int>?
    private var authority: Range<Int>?
    private var protocolName: Range<Int>?
    private var host: Range<Int>?
    private(set) var contentLength: Int?
    private(set) var refusal: Refusal?

    /// - Parameter bytesMax: Of the names and values together.
    init(_ buffers: BufferPool, bytesMax: Int) {
        self.buffers = buffers
        self.bytesMax = bytesMax
    }

    /// The method as it will stand in the HTTP/1.1 request.
    var method: Method {
        guard !isExtendedConnect, let range = methodText, let pseudo = pseudo.buffer else { return .get }
        return Method.named(pseudo.readable.extracting(range))
    }

    /// A CONNECT with a protocol to speak (RFC 8441 §4).
    var isExtendedConnect: Bool { protocolName != nil }

    /// Forgets the block before and gives its memory back.
    func reset() {
        pseudo.release(buffers)
        fields.release(buffers)
        cookies.release(buffers)
        methodText = nil
        path = nil
        scheme = nil
        authority = nil
        protocolName = nil
        host = nil
        contentLength = nil
        refusal = nil
    }

    /// Takes one field, in the order of the block.
    func field(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        guard refusal != .malformed else { return }
        guard value.endOfFieldText(from: 0) == value.count else { return refusal = .malformed }
        if name.count > 0, name[0] == UInt8(ascii: ":") { return pseudoField(name, value) }
        guard name.count > 0, Self.isLowerCaseToken(name) else { return refusal = .malformed }
        if Self.belongsToConnection(name) { return refusal = .malformed }
        switch name.count {
        case 2 where name.matches("te"):
            guard value.matchesIgnoringCase("trailers") else { return refusal = .malformed }
            line(name, value)
        case 4 where name.matches("host"): keepHost(value)
        case 6 where name.matches("cookie"): crumb(value)
        case 14 where name.matches("content-length"): keepLength(value)
        case 14 where name.matches("http2-settings"): break
        default: line(name, value)
        }
    }

    /// The five pseudo-header fields of requests; any other has been refused already.
    private func pseudoField(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        guard let range = keep(value) else { return }
        let earlier: Range<Int>?
        if name.matches(":method") {
            earlier = methodText
            methodText = range
        } else if name.matches(":path") {
            earlier = path
            path = range
        } else if name.matches(":scheme") {
            earlier = scheme
            scheme = range
        } else if name.matches(":authority") {
            earlier = authority
            authority = range
        } else if name.matches(":protocol") {
            earlier = protocolName
            protocolName = range
        } else {
            return refusal = .malformed
        }
        if earlier != nil { refusal = .malformed }
    }

    private func keepHost(_ value: Span<UInt8>) {
        guard host == nil else { return refusal = .malformed }
        host = keep(value)
    }

    private func keepLength(_ value: Span<UInt8>) {
        guard contentLength == nil, let length = FramingFields.decimal(value, 0..<value.count) else {
            return refusal = .malformed
        }
        contentLength = length
    }

    private func keep(_ value: Span<UInt8>) -> Range<Int>? {
        guard let buffer = pseudo.room(value.count, buffers, bytesMax: bytesMax) else {
            refusal = .tooLarge
            return nil
        }
        let start = buffer.readableBytes
        buffer.append(value)
        return start..<(start + value.count)
    }

    private func line(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        let bytes = name.count + value.count + 4
        guard refusal == nil, let buffer = fields.room(bytes, buffers, bytesMax: bytesMax) else {
            return refusal = .tooLarge
        }
        buffer.append(name)
        buffer.append(": ")
        buffer.append(value)
        buffer.append("\r\n")
    }

    /// One field for all of them, as HTTP/1.1 wants it (RFC 9113 §8.2.3).
    private func crumb(_ value: Span<UInt8>) {
        guard refusal == nil, let buffer = cookies.room(value.count + 2, buffers, bytesMax: bytesMax) else {
            return refusal = .tooLarge
        }
        if !buffer.isEmpty { buffer.append("; ") }
        buffer.append(value)
    }

    /// Judges the block as a whole; call once, when it is complete.
    func judge() {
        guard let pseudo = pseudo.buffer, let methodText, !methodText.isEmpty else { return refusal = .malformed }
        guard refusal == nil else { return }
        let bytes = pseudo.readable
        let isConnect = bytes.extracting(methodText).matches("CONNECT")
        if isExtendedConnect != isConnect, isExtendedConnect { return refusal = .malformed }
        if !isConnect || isExtendedConnect {
            guard let path, !path.isEmpty, let scheme, !scheme.isEmpty else { return refusal = .malformed }
            let isAsterisk = path.count == 1 && bytes[path.lowerBound] == UInt8(ascii: "*")
            guard isAsterisk || bytes[path.lowerBound] == UInt8(ascii: "/") else { return refusal = .malformed }
        }
        if let authority, let host,
            !bytes.extracting(authority).matchesIgnoringCase(bytes.extracting(host))
        {
            refusal = .malformed
        }
        if isExtendedConnect, let protocolName, !Self.isToken(bytes.extracting(protocolName)) { refusal = .malformed }
    }

    /// The block is malformed for a reason that does not show in its fields.
    func refuse() { refusal = .malformed }

    /// Room that `writeHead` needs.
    var headBytesMax: Int { 2 * pseudo.count + fields.count + cookies.count + 256 }

    /// Writes what was judged as an HTTP/1.1 head. A block that is refused leaves its first line and Host.
    /// - Parameters:
    ///   - hasBody: DATA may follow.
    ///   - webSocketKey: 24 characters for a WebSocket's opening handshake (RFC 6455 §4.1), where it is one.
    func writeHead(hasBody: Bool, webSocketKey: Span<UInt8>, to output: ByteBuffer) {
        guard let pseudo = pseudo.buffer else { return }
        let bytes = pseudo.readable
        writeRequestLine(bytes, to: output)
        if let host = authority ?? host {
            output.append("host: ")
            output.append(bytes.extracting(host))
            output.append("\r\n")
        }
        if let fields = fields.buffer, refusal == nil { output.append(fields.readable) }
        if let cookies = cookies.buffer, refusal == nil {
            output.append("cookie: ")
            output.append(cookies.readable)
            output.append("\r\n")
        }
        if isExtendedConnect {
            writeUpgrade(bytes, webSocketKey: webSocketKey, to: output)
        } else {
            writeFraming(hasBody: hasBody, to: output)
        }
        output.append("\r\n")
    }

    private func writeRequestLine(_ bytes: Span<UInt8>, to output: ByteBuffer) {
        if isExtendedConnect {
            output.append("GET")
        } else if let methodText {
            output.append(bytes.extracting(methodText))
        }
        output.append(" ")
        if let target = path ?? authority { output.append(bytes.extracting(target)) }
        output.append(" HTTP/1.1\r\n")
    }

    private func writeUpgrade(_ bytes: Span<UInt8>, webSocketKey: Span<UInt8>, to output: ByteBuffer) {
        guard let protocolName else { return }
        output.append("connection: upgrade\r\nupgrade: ")
        output.append(bytes.extracting(protocolName))
        output.append("\r\n")
        guard bytes.extracting(protocolName).matchesIgnoringCase("websocket") else { return }
        output.append("sec-websocket-key: ")
        output.append(webSocketKey)
        output.append("\r\n")
    }

    private func writeFraming(hasBody: Bool, to output: ByteBuffer) {
        if let contentLength {
            output.append("content-length: ")
            output.append(decimal: contentLength)
            output.append("\r\n")
        } else if hasBody {
            output.append("transfer-encoding: chunked\r\n")
        }
    }

    /// RFC 9113 §8.2.2.
    static func belongsToConnection(_ name: Span<UInt8>) -> Bool {
        switch name.count {
        case 7: name.matches("upgrade")
        case 10: name.matches("connection") || name.matches("keep-alive")
        case 16: name.matches("proxy-connection")
        case 17: name.matches("transfer-encoding")
        default: false
        }
    }

    static func isToken(_ name: Span<UInt8>) -> Bool { name.count > 0 && name.endOfToken(from: 0) == name.count }

    /// Letters in lower case and "-" alone, as nearly every name: eight bytes a step, the last eight overlapping.
    private static func isPlainName(_ name: Span<UInt8>) -> Bool {
        guard name.count >= 8 else { return false }
        var index = 0
        while true {
            guard isPlain(name.word(at: index)) else { return false }
            if index == name.count - 8 { return true }
            index = min(index + 8, name.count - 8)
        }
    }

    /// "a" to "z" are where adding makes a carry for the one bound and not for the other.
    @inline(__always)
    private static func isPlain(_ word: UInt64) -> Bool {
        let low = word & 0x7F7F_7F7F_7F7F_7F7F
        let letters = (low &+ 0x1F1F_1F1F_1F1F_1F1F) & ~(low &+ 0x0505_0505_0505_0505)
        let dashes = ~((low ^ 0x2D2D_2D2D_2D2D_2D2D) &+ 0x7F7F_7F7F_7F7F_7F7F)
        return ((letters | dashes) & ~word) & 0x8080_8080_8080_8080 == 0x8080_8080_8080_8080
    }

    /// RFC 9113 §8.2.1.
    static func isLowerCaseToken(_ name: Span<UInt8>) -> Bool {
        if isPlainName(name) { return true }
        guard isToken(name) else { return false }
        for index in name.indices where lowercased(name[index]) != name[index] { return false }
        return true
    }
}
