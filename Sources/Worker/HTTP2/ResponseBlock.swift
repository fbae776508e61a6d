/// Turns the fields of one HTTP/2 response into an HTTP/1.1 head (RFC 9113 §8.3.2), the mirror image of
/// `RequestBlock`. `ResponseParser` reads the result.
struct ResponseBlock {
    private let buffers: BufferPool
    private let bytesMax: Int
    private var fields = PooledText()
    private(set) var status = 0
    private(set) var contentLength: Int?
    private(set) var isMalformed = false

    init(_ buffers: BufferPool, bytesMax: Int) {
        self.buffers = buffers
        self.bytesMax = bytesMax
    }

    /// Another head of this response follows.
    var isInterim: Bool { status < 200 }

    mutating func reset() {
        fields.release(buffers)
        status = 0
        contentLength = nil
        isMalformed = false
    }

    /// Takes one field, in the order of the block.
    mutating func field(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        guard !isMalformed else { return }
        guard value.endOfFieldText(from: 0) == value.count else { return isMalformed = true }
        if name.count > 0, name[0] == UInt8(ascii: ":") { return statusField(name, value) }
        guard RequestBlock.isLowerCaseToken(name), !RequestBlock.belongsToConnection(name) else {
            return isMalformed = true
        }
        if name.matches("content-length") {
            guard contentLength == nil, let length = FramingFields.decimal(value, 0..<value.count) else {
                return isMalformed = true
            }
            contentLength = length
        } else {
            line(name, value)
        }
    }

    private mutating func statusField(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        guard name.matches(":status"), status == 0, value.count == 3,
            let number = FramingFields.decimal(value, 0..<3), number >= 100, number != 101
        else { return isMalformed = true }
        status = number
    }

    private mutating func line(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        let bytes = name.count + value.count + 4
        guard let buffer = fields.room(bytes, buffers, bytesMax: bytesMax) else { return isMalformed = true }
        buffer.append(name)
        buffer.append(": ")
        buffer.append(value)
        buffer.append("\r\n")
    }

    /// Judges the block as a whole; call once, when it is complete.
    mutating func judge() {
        if status == 0 { isMalformed = true }
    }

    /// Room that `writeHead` needs.
    var headBytesMax: Int { fields.count + 192 }

    /// Writes the head that opens a WebSocket in HTTP/1.1 (RFC 6455 §4.2.2), where HTTP/2 says 2xx (RFC 8441 §5).
    func writeSwitching(accept: Span<UInt8>, to output: ByteBuffer) {
        output.append("HTTP/1.1 101 Switching Protocols\r\n")
        if let fields = fields.buffer { output.append(fields.readable) }
        output.append("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ")
        output.append(accept)
        output.append("\r\n\r\n")
    }

    /// Writes an HTTP/1.1 head.
    /// - Parameters:
    ///   - hasBody: DATA may follow.
    ///   - method: Of the request; HEAD has no body, whatever the fields say.
    func writeHead(answering method: Method, hasBody: Bool, to output: ByteBuffer) {
        output.append("HTTP/1.1 ")
        output.append(decimal: status)
        output.append(" \r\n")
        if let fields = fields.buffer { output.append(fields.readable) }
        if let contentLength {
            output.append("content-length: ")
            output.append(decimal: contentLength)
            output.append("\r\n")
        } else if !ResponseParser.hasNoBody(status: status, answering: method) {
            output.append(hasBody ? "transfer-encoding: chunked\r\n" : "content-length: 0\r\n")
        }
        output.append("\r\n")
    }
}
