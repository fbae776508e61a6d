import ShmRing

/// Moves one message body from one connection to another, in either direction, with bounded memory.
///
///     source socket ──recv──► source.input ──send──► sink socket          length, until close
///                                  └─decode─► sink.output ──send──►       chunked on either side
///
/// Reads only while the sink takes: when the sink's socket is full, nothing more is read, and the
/// kernel's flow control reaches the sender. A raw body leaves straight from the buffer it arrived in.
final class BodyRelay {
    enum Outcome: Equatable {
        /// The body is over and the sink's kernel has all of it.
        case finished
        case needsInput
        case sinkBlocked
        /// Used up its turn; go on without waiting for an event.
        case yielded
        /// The source ended before the body did.
        case sourceEnded
        case sourceFailed(Errno)
        case sinkFailed(Errno)
        case malformed
        /// More than `bytesMax`.
        case tooLarge
    }

    /// Reads of one turn, after which other connections get theirs.
    private static let readsPerTurn = 16
    /// Chunks are written into an output buffer of this size.
    private static let chunkedOutputBytes = BufferPool.Size.large.rawValue
    /// Room that the framing around one piece of data takes at most.
    private static let chunkFramingBytes = 24

    private(set) var framing: BodyFraming
    /// Bytes of a raw body that have not passed yet, `.max` until the source closes; -1 when the chunked coding is on
    /// either side, and `reader` takes the body apart.
    private var rawBytesLeft: Int
    private var reader = BodyReader(.none)
    /// Whether the sink gets the chunked coding.
    private var writesChunks: Bool
    private var bytesMax: Int
    private var isLastChunkWritten = false
    /// The source's own end is awaited behind the last byte, and goes to the sink with its trailers.
    private(set) var handsOverEnd = false
    /// Body bytes that were handed to the sink, framing not counted.
    private(set) var bodyBytes = 0
    /// Bytes that the source's input gave up, framing included: while 0, the body can go elsewhere.
    private(set) var sourceBytesUsed = 0
    /// Bytes that the sink's kernel took, its head included.
    private(set) var sinkBytesTaken = 0
    /// What the source gave up, for another attempt; nil when it is not kept, or was too much.
    private(set) var kept: ByteBuffer?
    private var keptBytesMax = 0
    /// Changes whenever something moved at either end.
    var progress: Int { sourceBytesUsed &+ sinkBytesTaken }

    /// - Parameters:
    ///   - framing: How the source marks the body's end.
    ///   - writesChunks: Whether the sink gets chunks; else it gets the bytes as they are.
    ///   - bytesMax: Refuses a longer body; 0 for no limit.
    init(_ framing: BodyFraming, writesChunks: Bool, bytesMax: Int = 0) {
        self.framing = framing
        self.writesChunks = writesChunks
        self.bytesMax = bytesMax
        rawBytesLeft = 0
        restart(framing, writesChunks: writesChunks, bytesMax: bytesMax)
    }

    /// Begins with another body; the parameters are those of `init`.
    func restart(_ framing: BodyFraming, writesChunks: Bool, bytesMax: Int = 0) {
        self.framing = framing
        self.writesChunks = writesChunks
        self.bytesMax = bytesMax
        rawBytesLeft = writesChunks ? -1 : framing.rawBytesMax
        if rawBytesLeft < 0 { reader = BodyReader(framing) }
        isLastChunkWritten = false
        handsOverEnd = false
        bodyBytes = 0
        sourceBytesUsed = 0
        sinkBytesTaken = 0
    }

    /// The sink has taken the head that goes before the body.
    func headPassed(_ bytes: Int) { sinkBytesTaken += bytes }

    /// Both sides have messages with an end of their own, and trailers may come with it. To be called behind `restart`.
    func handOverEnd() { handsOverEnd = true }

    /// The sink threw away some of what it had taken.
    func notSent(_ bytes: Int) { bodyBytes -= bytes }

    /// Keeps what passes from now on, up to a limit, so that it can be given back.
    func keep(bytesMax: Int, _ buffers: BufferPool) {
        guard bytesMax > 0, sourceBytesUsed == 0 else { return }
        kept = kept ?? buffers.take(.small)
        keptBytesMax = bytesMax
    }

    /// Whether everything that the source gave up can be given back to it.
    var isSourceKept: Bool { sourceBytesUsed == 0 || kept?.readableBytes == sourceBytesUsed }

    /// Puts what was kept in front of what the source still has.
    func giveBack(to source: Connection, _ buffers: BufferPool) {
        guard let bytes = kept else { return }
        kept = nil
        defer { buffers.give(bytes) }
        guard bytes.readableBytes == sourceBytesUsed, !bytes.isEmpty else { return }
        let waiting = source.input
        let whole = buffers.take(holding: bytes.readableBytes + (waiting?.readableBytes ?? 0))
        whole.append(bytes.readable)
        if let waiting {
            whole.append(waiting.readable)
            buffers.give(waiting)
        }
        source.input = whole
    }

    /// Lets go of what was kept.
    func forgetKept(_ buffers: BufferPool) {
        guard let bytes = kept else { return }
        kept = nil
        buffers.give(bytes)
    }

    /// Copies the next bytes of the source before they are used; `settleKept` then says how many were.
    private func copyForKeeping(_ input: ByteBuffer, countMax: Int, _ buffers: BufferPool) {
        guard var copy = kept else { return }
        let count = min(countMax, input.readableBytes)
        guard copy.readableBytes + count <= keptBytesMax else { return forgetKept(buffers) }
        if copy.writableBytes < count {
            // Twice as large, so that a body that is kept whole is copied about once more and not once with each piece.
            let larger = buffers.take(holding: max(copy.readableBytes + count, min(2 * copy.capacity, keptBytesMax)))
            larger.append(copy.readable)
            buffers.give(copy)
            kept = larger
            copy = larger
        }
        copy.append(input.readable.extracting(first: count))
    }

    private func settleKept() {
        if let copy = kept, copy.readableBytes > sourceBytesUsed { copy.truncate(to: sourceBytesUsed) }
    }

    /// True when every byte of the body has been taken from the source.
    var isRead: Bool { rawBytesLeft == 0 || isLastChunkWritten || (rawBytesLeft < 0 && hasReaderFinished) }

    /// Not inlined, so that the check of this access is not made where the reader is not asked.
    private var hasReaderFinished: Bool {
        @inline(never) get { reader.isFinished }
    }

    /// Moves what can be moved now.
    func pump(from source: Connection, to sink: Connection, _ buffers: BufferPool) -> Outcome {
        for _ in 0..<Self.readsPerTurn {
            if let stop = drainInput(of: source, to: sink, buffers) { return stop }
            switch source.receive(buffers, bytesMax: sink.sendBytesMax) {
            case .bytes: continue
            case .wouldBlock: return .needsInput
            case .failed(let error): return isRead ? endWithoutTrailers(sink, buffers) : .sourceFailed(error)
            case .endOfStream: return isRead ? endWithoutTrailers(sink, buffers) : sourceEnded(sink, buffers)
            }
        }
        return .yielded
    }

    /// Sends what is in the source's input; nil when more must be read.
    private func drainInput(
        of source: Connection, to sink: Connection, _ buffers: BufferPool
    ) -> Outcome? {
        while true {
            if isRead { return handsOverEnd ? giveEnd(of: source, to: sink, buffers) : finish(sink, buffers) }
            guard let input = source.input, !input.isEmpty else {
                return flushed(sink, buffers)
            }
            if kept != nil { copyForKeeping(input, countMax: min(input.readableBytes, keptBytesMax + 1), buffers) }
            defer { if kept != nil { settleKept() } }
            let stop =
                if rawBytesLeft >= 0 {
                    sendRaw(input, countMax: rawBytesLeft, sink, buffers)
                } else {
                    recode(input, sink, buffers)
                }
            source.releaseEmptyInput(buffers)
            if let stop { return stop }
        }
    }

    /// Raw bytes, without a copy unless they can share a packet with a head that waits.
    private func sendRaw(
        _ input: ByteBuffer, countMax: Int, _ sink: Connection, _ buffers: BufferPool
    ) -> Outcome? {
        let count = min(countMax, input.readableBytes)
        if bytesMax > 0, bodyBytes + count > bytesMax { return .tooLarge }
        if let pending = sink.output, pending.writableBytes >= count, count <= 4096 {
            pending.append(input.readable.extracting(first: count))
            input.consume(count)
            passed(count)
            return flushed(sink, buffers)
        }
        guard sink.isWritable else { return .sinkBlocked }
        let before = input.readableBytes
        let result = sink.send(input, countMax: count)
        passed(before - input.readableBytes)
        if let pending = sink.output, pending.isEmpty {
            sink.output = nil
            buffers.give(pending)
        }
        switch result {
        case .bytes(let sent): sinkBytesTaken += sent
        case .wouldBlock: sink.isWritable = false
        case .endOfStream: preconditionFailure("send(2) has no end of stream")
        case .failed(let error): return .sinkFailed(error)
        }
        return nil
    }

    private func passed(_ count: Int) {
        if rawBytesLeft != .max { rawBytesLeft -= count }
        bodyBytes += count
        sourceBytesUsed += count
    }

    /// Decodes and, where the sink wants chunks, encodes: one copy into the sink's output. Not inlined, so that raw
    /// bodies do not pay for the checks of its accesses.
    @inline(never)
    private func recode(_ input: ByteBuffer, _ sink: Connection, _ buffers: BufferPool) -> Outcome? {
        let wanted = min(input.readableBytes + Self.chunkFramingBytes, Self.chunkedOutputBytes)
        let output = sink.outputBuffer(room: sink.hasOutput ? Self.chunkFramingBytes + 1 : wanted, buffers)
        let room = output.writableBytes - Self.chunkFramingBytes
        guard room > 0 else { return flushed(sink, buffers) }
        var index = 0
        let event = reader.next(input.readable.extracting(first: min(room, input.readableBytes)), &index)
        if case .data(let range) = event {
            if bytesMax > 0, bodyBytes + range.count > bytesMax { return .tooLarge }
            writePiece(input.readable.extracting(range), to: output)
            bodyBytes += range.count
        }
        input.consume(index)
        sourceBytesUsed += index
        if event == .malformed { return .malformed }
        let isOutputFull = output.writableBytes < Self.chunkedOutputBytes / 8
        return isOutputFull ? flushed(sink, buffers) : nil
    }

    private func writePiece(_ bytes: Span<UInt8>, to output: ByteBuffer) {
        writesChunks ? Self.writeChunk(bytes, to: output) : output.append(bytes)
    }

    static func writeChunk(_ bytes: Span<UInt8>, to output: ByteBuffer) {
        output.append(hex: UInt64(bytes.count), digits: hexDigits(bytes.count))
        output.append("\r\n")
        output.append(bytes)
        output.append("\r\n")
    }

    private static func writeLastChunk(trailers: [UInt8], to output: ByteBuffer) {
        output.append("0\r\n")
        output.append(trailers.span)
        output.append("\r\n")
    }

    private static func hexDigits(_ value: Int) -> Int {
        max(1, (Int.bitWidth - value.leadingZeroBitCount + 3) / 4)
    }

    /// Writes the last chunk once, then waits for the kernel to take everything.
    private func finish(_ sink: Connection, _ buffers: BufferPool) -> Outcome {
        if writesChunks, !isLastChunkWritten {
            let trailers = Trailers.forwardable(reader.trailers)
            let output = sink.outputBuffer(room: trailers.count + 8, buffers)
            Self.writeLastChunk(trailers: trailers, to: output)
        }
        isLastChunkWritten = true
        return flushed(sink, buffers) ?? .finished
    }

    /// Hands the source's end over, once it is here and the sink has taken all that is in front of it; nil when more
    /// must be read.
    private func giveEnd(of source: Connection, to sink: Connection, _ buffers: BufferPool) -> Outcome? {
        if sink.output != nil, let stop = flushed(sink, buffers), sink.output != nil { return stop }
        guard let trailers = source.transport?.endOfMessage else { return flushed(sink, buffers) }
        handsOverEnd = false
        sink.transport?.endMessage(trailers: trailers)
        return finish(sink, buffers)
    }

    /// The body is whole, and its source is gone before it has said so.
    private func endWithoutTrailers(_ sink: Connection, _ buffers: BufferPool) -> Outcome {
        handsOverEnd = false
        sink.transport?.endMessage(trailers: [])
        return finish(sink, buffers)
    }

    /// Writes a whole body that stands in `bytes` behind a head in `output`, re-encoded like one that
    /// streams. The caller has made room for the body as it stands and 64 bytes more: one chunk at most is
    /// framed anew for each that came, and its framing is no longer than the sender's.
    static func writeWhole(_ bytes: Span<UInt8>, _ framing: BodyFraming, to output: ByteBuffer) {
        guard framing == .chunked else { return output.append(bytes) }
        var reader = BodyReader(framing)
        var index = 0
        while case .data(let range) = reader.next(bytes, &index) {
            writeChunk(bytes.extracting(range), to: output)
        }
        writeLastChunk(trailers: Trailers.forwardable(reader.trailers), to: output)
    }

    /// What the bytes behind a head hold of its body.
    enum Presence: Equatable {
        /// All of it: its bytes with the framing, and without.
        case whole(bytes: Int, data: Int)
        case partial
        case malformed
    }

    static func presence(_ bytes: Span<UInt8>, _ framing: BodyFraming) -> Presence {
        var reader = BodyReader(framing)
        var index = 0
        var data = 0
        while true {
            switch reader.next(bytes, &index) {
            case .data(let range): data += range.count
            case .finished: return .whole(bytes: index, data: data)
            case .needsMore: return .partial
            case .malformed: return .malformed
            }
        }
    }

    /// Nil when the sink has nothing pending.
    private func flushed(_ sink: Connection, _ buffers: BufferPool) -> Outcome? {
        let before = sink.output?.readableBytes ?? 0
        let result = sink.flush(buffers)
        sinkBytesTaken += before - (sink.output?.readableBytes ?? 0)
        return switch result {
        case .bytes: nil
        case .wouldBlock: .sinkBlocked
        case .failed(let error): .sinkFailed(error)
        case .endOfStream: preconditionFailure("send(2) has no end of stream")
        }
    }

    private func sourceEnded(_ sink: Connection, _ buffers: BufferPool) -> Outcome {
        guard framing == .untilClose else { return .sourceEnded }
        return finish(sink, buffers)
    }
}
