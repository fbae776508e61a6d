import ShmRing

/// One line a request, gathered and written once a turn of the loop.
///
/// A log that cannot be written never holds a request up: lines that a full pipe does not take are dropped,
/// whole. Lines leave in pieces that the kernel writes in one go (PIPE_BUF), so that those of several
/// workers do not mix.
final class AccessLogWriter {
    private let sink: LogSink
    private let isJSON: Bool
    /// The front of the buffer is the rest of a line of which some has been written.
    private var isMidLine = false
    private static let pieceBytesMax = 4096
    private let buffer = ByteBuffer(capacity: 256 * 1024)
    /// Longest target that is written, in bytes of the request.
    private static let targetBytesMax = 4096
    /// Room that one line takes at most: escaping makes up to six bytes of one.
    private static let lineBytesMax = 6 * targetBytesMax + 2048

    init(_ configuration: WorkerConfiguration.AccessLog) {
        sink = LogSink(configuration.descriptor)
        isJSON = configuration.isJSON
    }

    func flush() {
        while !buffer.isEmpty {
            let piece = pieceBytes()
            guard case .bytes(let count) = sink.write(buffer, countMax: piece), count > 0 else { return dropLines() }
            isMidLine = count < piece
        }
    }

    /// Whole lines up to the piece size, or one longer line.
    private func pieceBytes() -> Int {
        let buffer = self.buffer
        let bytes = buffer.readable
        var end = 0
        for index in bytes.indices where bytes[index] == UInt8(ascii: "\n") {
            if index >= Self.pieceBytesMax, end > 0 { break }
            end = index + 1
            if isMidLine { break }
        }
        return end
    }

    /// Forgets the waiting lines, but not the rest of one that has been begun.
    private func dropLines() {
        guard isMidLine else { return buffer.reset() }
        buffer.truncate(to: pieceBytes())
    }

    func record(_ exchange: Exchange, _ client: DownstreamConnection, _ endpoints: [Endpoint]) {
        if buffer.writableBytes < Self.lineBytesMax {
            flush()
            buffer.compact()
        }
        var line = LogLine(buffer, isJSON: isJSON)
        line.time("time", unixNs: exchange.startedUnixNs)
        if exchange.identity.rootSpanID != 0 {
            line.hex("trace_id", exchange.identity.traceIDHigh, exchange.identity.traceIDLow)
            line.hex("span_id", exchange.identity.rootSpanID)
        }
        line.peer("client", client.peer)
        if let retained = exchange.retained {
            line.text("method", retained.readable.extracting(exchange.head.methodText))
            let target = exchange.head.target
            line.text("target", retained.readable.extracting(target.prefix(Self.targetBytesMax)))
        }
        line.number("status", exchange.statusSent)
        line.number("bytes", exchange.responseBodyBytes)
        line.number("duration_us", Int((exchange.endedNs &- exchange.startedNs) / 1000))
        let backend = exchange.lastEndpoint
        if backend >= 0 { line.text("backend", endpoints[backend].name.utf8.span) }
        if let error = exchange.error { line.text("error", error.text) }
        line.end()
    }
}
