import Glibc
import ShmRing

/// One stream of an HTTP/2 connection, to the proxy a transport that carries HTTP/1.1 text.
///
///     peer ─► header block ─► text ─┐                            ┌─ text ─► header block ─► peer
///             DATA ─────────► bytes ┴► receive ─► proxy ─► send ─┴─ bytes ─► DATA
///
/// A request comes in as a head, then its body raw or chunked; what the proxy sends is parsed again and becomes
/// HEADERS, DATA and trailers. The other way round towards a backend. The stream lives until libnghttp2 has closed
/// it and the proxy has let go of it. It does no I/O: its session moves frames, its owner's events are the proxy's.
/// Objects are reused from stream to stream.
final class HTTP2Stream: Transport, Reusable {
    /// How DATA goes to the proxy.
    enum InboundFraming {
        /// There is none, or the length is known.
        case raw
        case chunked
        /// Two ways, without an end but the stream's.
        case tunnel
    }

    /// What the proxy has not looked at yet.
    struct News {
        /// The peer's request is here.
        var hasArrived = false
        /// There is more to receive.
        var isReadable = false
        /// Everything that was sent has left.
        var hasDrained = false
        /// The stream is over.
        var hasClosed = false
    }

    /// Bytes for the peer that wait here at most.
    static let outboundBytesMax = BufferPool.Size.large.rawValue
    private static let chunkFramingBytes = 24

    /// Nil only while the object waits for its next use.
    private var home: HTTP2Session?
    /// 0 before a request of ours was submitted.
    private(set) var id: Int32 = 0
    /// Where the session keeps it.
    var place = 0
    var news = News()
    var isInTouched = false
    var isInSending = false
    /// The answer came early: once it has left, the rest of the request is discarded.
    var isWaitingForRest = false
    /// It is being discarded: since when, when something came last, and how much.
    var isDiscarding = false
    var discardStartNs: UInt64 = 0
    var discardProgressNs: UInt64 = 0
    var discardedBytes = 0
    var downstream: DownstreamConnection?
    var upstream: UpstreamConnection?

    // From the peer.
    private let inbound = PooledText()
    /// Bytes at the front of `inbound` that are HTTP/1.1 text and go as they are.
    private var textBytes = 0
    private var framing = InboundFraming.raw
    /// Body bytes that must come, where that is known.
    private var lengthExpected: Int?
    /// The peer has ended its side.
    private(set) var hasInboundEnded = false
    private var isEndTaken = false
    private var trailers: [UInt8] = []
    /// A final head has come in.
    private(set) var hasFinalHead = false
    private var interimCount = 0
    /// Of the request.
    var method = Method.get
    var isExtendedConnect = false
    /// Of a request of ours: it opens a WebSocket.
    var opensTunnel = false
    /// What the client that opens it expects to see the key of again (RFC 6455 §4.2.2).
    var webSocketKey: [UInt8] = []
    /// Why the request is answered here, whatever its text says.
    var refusal: ErrorType?

    // To the peer.
    private var outbound: ByteBuffer?
    /// What waited in it when it was thrown away.
    private var droppedBytes = 0
    private var reader = BodyReader(.none)
    /// Bytes of a body without framing that are to come; -1 when `reader` takes it apart.
    private var rawBytesLeft = 0
    private var isHeadSent = false
    /// The proxy has given everything.
    private(set) var hasOutboundEnded = false
    /// END_STREAM has been written.
    private(set) var hasSentEnd = false
    private var outboundTrailers: [UInt8] = []
    /// The last byte of a body whose length is known is not the end: `endMessage` is.
    private var isEndHeld = false
    private var isDeferred = false
    /// Something was submitted that is not written yet.
    private var hasSubmitted = false

    // The end.
    private(set) var isClosed = false
    /// The proxy has let go.
    private(set) var isAbandoned = false
    private(set) var errorCode: UInt32 = 0
    /// RST_STREAM came.
    var wasResetByPeer = false
    /// RST_STREAM was submitted here, by this proxy's own choice or because of what the peer had sent.
    var isResetting = false
    var wasResetHere = false
    /// What it counts for in the memory of the session that is to blame for it, and the parts of its head, of what waits
    /// for the peer, and of what was read to be handed on.
    private var heldBytes = 0
    private var payer: HTTP2Session?
    private var isForgotten = false
    private var headHeldBytes = 0
    private var outboundHeldBytes = 0
    private var requestBytesBehind = 0
    private var responseBytesBehind = 0
    /// By how much its window is larger than the first one.
    var raisedBytes = 0
    /// Body bytes that came in and were handed on.
    private(set) var bodyBytesTaken = 0

    private var session: HTTP2Session {
        guard let home else { preconditionFailure("a stream without a session") }
        return home
    }

    deinit {
        if heldBytes > 0 { payer?.held(-heldBytes) }
    }

    // MARK: From use to use

    func begin(on session: HTTP2Session, id: Int32, place: Int) {
        home = session
        self.id = id
        self.place = place
    }

    func reset() {
        if let home { release(home.context.buffers) }
        home = nil
        (id, place) = (0, 0)
        news = News()
        (isInTouched, isInSending) = (false, false)
        (isWaitingForRest, isDiscarding, discardedBytes) = (false, false, 0)
        (discardStartNs, discardProgressNs) = (0, 0)
        (downstream, upstream) = (nil, nil)
        resetInbound()
        resetOutbound()
        (isClosed, isAbandoned, errorCode) = (false, false, 0)
        (wasResetByPeer, isResetting, wasResetHere) = (false, false, false)
        (isDrained, receiveAwaitsWritable, sendAwaitsReadable) = (false, false, false)
        (raisedBytes, isForgotten) = (0, false)
    }

    private func release(_ buffers: BufferPool) {
        inbound.release(buffers)
        dropOutbound()
        holdsLittle()
    }

    private func resetInbound() {
        (textBytes, framing, lengthExpected) = (0, .raw, nil)
        (hasInboundEnded, isEndTaken, hasFinalHead) = (false, false, false)
        (method, isExtendedConnect, opensTunnel, refusal) = (.get, false, false, nil)
        (headHeldBytes, bodyBytesTaken, interimCount) = (0, 0, 0)
        if !trailers.isEmpty { trailers = [] }
        if !webSocketKey.isEmpty { webSocketKey = [] }
    }

    private func resetOutbound() {
        if rawBytesLeft < 0 { startReader(.none) }
        (rawBytesLeft, isHeadSent, isEndHeld, droppedBytes) = (0, false, false, 0)
        (hasOutboundEnded, hasSentEnd, isDeferred, hasSubmitted) = (false, false, false, false)
        if !outboundTrailers.isEmpty { outboundTrailers = [] }
    }

    private var isServer: Bool { session.role == .server }
    private var buffers: BufferPool { session.context.buffers }

    // MARK: The session's side

    /// Room for a head's text, which `headWritten` then counts.
    func headRoom(_ bytes: Int) -> ByteBuffer? { inbound.room(bytes, buffers) }

    /// - Parameter lengthExpected: Bytes that the body will have, where that is known.
    func headWritten(bytes: Int, framing: InboundFraming, isFinal: Bool, lengthExpected: Int? = nil) {
        textBytes += bytes
        if bytes > Self.freeBytes {
            let size = bytes > BufferPool.Size.medium.rawValue ? BufferPool.Size.large : .medium
            if isServer { session.headBytes += size.rawValue - headHeldBytes }
            headHeldBytes = size.rawValue
            updateHeld()
        }
        self.framing = framing
        self.lengthExpected = lengthExpected
        if isFinal { hasFinalHead = true }
    }

    /// An interim head comes. They all wait here until somebody looks.
    func countInterim() -> Int {
        interimCount += 1
        return interimCount
    }

    /// - Returns: False when nobody will take the bytes.
    func dataReceived(_ bytes: Span<UInt8>) -> Bool {
        guard !isAbandoned, let buffer = inbound.room(bytes.count, buffers) else { return false }
        buffer.append(bytes)
        if buffer.capacity > Self.freeBytes { updateHeld() }
        return true
    }

    func inboundEnded(trailers: [UInt8]) {
        hasInboundEnded = true
        self.trailers = trailers
    }

    func closed(errorCode: UInt32) {
        isClosed = true
        self.errorCode = errorCode
    }

    func submitted(id: Int32) {
        self.id = id
        upstream?.exchange?.attempt.http2.streamID = id
    }

    /// Whether what was sent has left: called when the session has nothing more to write.
    func noticeDrained() -> Bool {
        hasSubmitted = false
        return isServer ? !hasBacklog : outbound == nil
    }

    /// The next DATA for the peer; `moveOutbound` then takes it.
    /// - Returns: How many bytes there are, up to `room`, and whether they are the last; nil when there are none yet.
    func nextOutbound(_ room: Int) -> (bytes: Int, isLast: Bool)? {
        let waiting = outbound?.readableBytes ?? 0
        let bytes = min(room, waiting)
        let isLast = hasOutboundEnded && bytes == waiting
        if bytes == 0, !isLast {
            isDeferred = true
            return nil
        }
        if isLast { hasSentEnd = true }
        return (bytes, isLast)
    }

    /// Moves the next bytes into `output`, which has room for them.
    /// - Returns: False when they are not there any more.
    func moveOutbound(_ count: Int, to output: ByteBuffer) -> Bool {
        guard let buffer = outbound, buffer.readableBytes >= count else { return false }
        output.append(buffer.readable.extracting(first: count))
        buffer.consume(count)
        if buffer.isEmpty {
            outbound = nil
            buffers.give(buffer)
            if outboundHeldBytes > 0 { updateHeld() }
        }
        return true
    }

    /// Trailers to send behind the last DATA; empty for none.
    var trailersToSend: [UInt8] { outboundTrailers }

    /// Gives the memory back; the peer's credit for bytes that nobody will read too.
    func dropInbound() {
        let unread = inbound.count - textBytes
        if unread > 0 { session.consume(self, bytes: unread) }
        inbound.release(buffers)
        textBytes = 0
        if heldBytes > 0 { updateHeld() }
    }

    /// A request is over before anybody has looked at it. Of a large head its first line and Host, which come first,
    /// are enough to tell of it.
    func shortenHead() {
        guard let text = inbound.buffer, text.capacity > Self.freeBytes else { return }
        let unread = inbound.count - textBytes
        if unread > 0 { session.consume(self, bytes: unread) }
        let kept = Self.endOfLines(text.readable.extracting(first: textBytes), count: 2)
        inbound.shorten(to: kept, end: "\r\n", buffers)
        textBytes = inbound.count
        if isServer { session.headBytes -= headHeldBytes }
        headHeldBytes = 0
        updateHeld()
    }

    /// Where the first lines end.
    private static func endOfLines(_ text: Span<UInt8>, count: Int) -> Int {
        var left = count
        for index in text.indices where text[index] == 0x0A {
            left -= 1
            if left == 0 { return index + 1 }
        }
        return text.count
    }

    // MARK: Memory

    /// What each stream may have without being counted.
    private static let freeBytes = BufferPool.Size.small.rawValue

    /// Counts buffers that are not small. A large head stays in memory while its request is served.
    private func updateHeld() {
        guard !isForgotten else { return hold(waitingCapacity) }
        let leaving = outbound.map { $0.capacity > Self.freeBytes ? $0.capacity : 0 } ?? 0
        if leaving != outboundHeldBytes {
            session.outboundBytes += leaving - outboundHeldBytes
            outboundHeldBytes = leaving
        }
        hold(waitingCapacity + leaving + headHeldBytes + requestBytesBehind + responseBytesBehind)
    }

    /// The buffer of what waits to be taken.
    private var waitingCapacity: Int { inbound.buffer.map { $0.capacity > Self.freeBytes ? $0.capacity : 0 } ?? 0 }

    private func hold(_ bytes: Int) {
        guard bytes != heldBytes else { return }
        let change = bytes - heldBytes
        heldBytes = bytes
        let payer = payer ?? findPayer()
        self.payer = bytes > 0 ? payer : nil
        payer.held(change)
    }

    /// A backend is not to blame for what a client does not take.
    private func findPayer() -> HTTP2Session {
        let client = upstream?.exchange?.downstream?.transport as? HTTP2Stream
        return client?.home ?? session
    }

    override func holds(behind capacity: Int, ofRequest: Bool) {
        let bytes = capacity > Self.freeBytes ? capacity : 0
        if ofRequest {
            guard bytes != requestBytesBehind else { return }
            requestBytesBehind = bytes
        } else {
            guard bytes != responseBytesBehind else { return }
            responseBytesBehind = bytes
        }
        updateHeld()
    }

    /// The session forgets it. What it received may still wait for its owner.
    func holdsLittle() {
        isForgotten = true
        guard let home else { return }
        home.outboundBytes -= outboundHeldBytes
        outboundHeldBytes = 0
        if isServer { session.headBytes -= headHeldBytes }
        headHeldBytes = 0
        requestBytesBehind = 0
        responseBytesBehind = 0
        hold(waitingCapacity)
    }

    func dropOutbound() {
        guard let buffer = outbound else { return }
        droppedBytes += buffer.readableBytes
        outbound = nil
        buffers.give(buffer)
        if outboundHeldBytes > 0 { updateHeld() }
    }

    // MARK: The proxy's side

    override var hasBacklog: Bool {
        isServer && !isClosed && (hasSubmitted || outbound != nil || (hasOutboundEnded && !hasSentEnd))
    }

    override func flush() -> IOResult {
        guard !isClosed || hasSentEnd else { return .failed(Errno(EPIPE)) }
        return hasBacklog ? .wouldBlock : .bytes(0)
    }

    override func receive(into buffer: ByteBuffer) -> IOResult {
        let before = buffer.readableBytes
        if session.isTight, awaitsData { session.wanted(self, bytes: buffer.writableBytes) }
        takeText(into: buffer)
        if textBytes == 0 { takeData(into: buffer) }
        if textBytes == 0, inbound.count == 0, hasInboundEnded, !isEndTaken { takeEnd(into: buffer) }
        if inbound.count == 0 { releaseInbound() }
        if awaitsData { session.keptUp(self) }
        // In a tight session the peer sends what is asked for.
        isDrained = inbound.count == 0 && !(isClosed && !isComplete) && !(session.isTight && awaitsData)
        let count = buffer.readableBytes - before
        return count > 0 ? .bytes(count) : nothingReceived()
    }

    /// Nothing is here to be taken, and more is to come.
    var awaitsData: Bool {
        !hasInboundEnded && inbound.count == 0 && hasFinalHead && !isClosed && !isAbandoned && id > 0
    }

    private func releaseInbound() {
        inbound.release(buffers)
        if heldBytes > 0 { updateHeld() }
    }

    /// Every byte is here that was announced, though the stream's end may still come.
    private var isBodyWhole: Bool { hasFinalHead && bodyBytesTaken == lengthExpected }

    /// A stream of ours that the proxy cannot let go of without a reset: libnghttp2 would keep its place.
    var isUnfinished: Bool { !isClosed && id > 0 && !(hasSentEnd && hasInboundEnded) }

    /// Of a stream of ours only an end is missing, and nobody has to do anything for it: the server's, behind the last
    /// byte of its response; ours, where a tunnel has ended both ways.
    var lacksOnlyEnd: Bool {
        guard isUnfinished else { return false }
        return isTunnel ? hasOutboundEnded && hasInboundEnded : hasSentEnd && isBodyWhole
    }

    /// The server is known not to have processed the request (RFC 9113 §8.7), and how.
    var unprocessed: RetryPolicy.Reason? {
        guard isClosed else { return nil }
        switch HTTP2ErrorCode(rawValue: errorCode) {
        case .http11Required where wasResetByPeer: return .http11Required
        case .refusedStream where wasResetByPeer: return .refusedStream
        case .refusedStream:
            // So ends what a GOAWAY refuses, and what did not leave any more because of one, or of the connection's end.
            guard let goaway = session.goaway else { return .connectionClosedBeforeResponse }
            return goaway.wantsHTTP1 ? .http11Required : .goaway
        default: return nil
        }
    }

    /// A GOAWAY that would have let it be came before it went out.
    var wasKeptBack: Bool { unprocessed != nil && !wasResetByPeer && id <= session.goaway?.lastStreamID ?? 0 }

    /// A RST_STREAM ended it, and not the end of the connection or a GOAWAY. One without an error behind a whole
    /// response is how a server refuses the rest of a request (§8.1), and no news.
    var wasReset: Bool {
        guard isClosed else { return false }
        if wasResetByPeer { return errorCode != 0 || !hasInboundEnded }
        return errorCode != 0 && errorCode != HTTP2ErrorCode.refusedStream.rawValue && !session.isDead
    }

    /// Why nothing more comes from the backend, where the proxy has seen no more than that nothing does.
    var failure: ErrorType {
        let reason = unprocessed
        if wasResetByPeer || reason != nil, reason != .connectionClosedBeforeResponse { return .upstreamReset }
        if session.isDead { return session.loss }
        // libnghttp2, or this proxy with its help, has found the response wrong.
        return .upstreamProtocolError
    }

    /// It was reset because of what the peer had sent on it.
    var isPeersFault: Bool { wasReset && !wasResetByPeer && !wasResetHere }

    /// Its connection was being left by the server.
    var isAfterGoaway: Bool { session.goaway != nil }

    /// Its connection is gone.
    var hasLostConnection: Bool { session.isDead }

    /// It goes both ways, and an end of one of them is not an end of the other.
    var isTunnel: Bool { framing == .tunnel }

    /// Bytes wait for the peer's credit.
    var hasUnsentBytes: Bool { outbound != nil }

    /// Body bytes that were taken from the proxy and have not left, or never will.
    var unsentBytes: Int { droppedBytes + (outbound?.readableBytes ?? 0) }

    /// The peer's message came to its end.
    private var isComplete: Bool { hasInboundEnded && !isTunnel }

    private func nothingReceived() -> IOResult {
        if isClosed, !isComplete {
            return hasInboundEnded && errorCode == 0 ? .endOfStream : .failed(Errno(ECONNRESET))
        }
        return hasInboundEnded && isTunnel ? .endOfStream : .wouldBlock
    }

    private func takeText(into buffer: ByteBuffer) {
        guard textBytes > 0, let text = inbound.buffer else { return }
        let count = min(textBytes, buffer.writableBytes)
        buffer.append(text.readable.extracting(first: count))
        text.consume(count)
        textBytes -= count
    }

    private func takeData(into buffer: ByteBuffer) {
        guard let data = inbound.buffer, !data.isEmpty else { return }
        let isChunked = framing == .chunked
        let count = min(data.readableBytes, buffer.writableBytes - (isChunked ? Self.chunkFramingBytes : 0))
        guard count > 0 else { return }
        let bytes = data.readable.extracting(first: count)
        if isChunked {
            BodyRelay.writeChunk(bytes, to: buffer)
        } else {
            buffer.append(bytes)
        }
        data.consume(count)
        bodyBytesTaken += count
        session.consume(self, bytes: count)
    }

    /// The last chunk with the trailers, as text that may need several receives.
    private func takeEnd(into buffer: ByteBuffer) {
        isEndTaken = true
        guard framing == .chunked, let end = inbound.room(trailers.count + 8, buffers) else { return }
        end.append("0\r\n")
        end.append(trailers.span)
        end.append("\r\n")
        textBytes = end.readableBytes
        takeText(into: buffer)
    }

    override func send(from buffer: ByteBuffer, countMax: Int) -> IOResult {
        guard !isClosed else { return .failed(Errno(EPIPE)) }
        var taken = 0
        while taken < countMax, !buffer.isEmpty {
            let count =
                isHeadSent ? takeBody(buffer, countMax: countMax - taken) : takeHead(buffer, countMax: countMax - taken)
            guard count >= 0 else { return .failed(Errno(EPROTO)) }
            if count == 0 { break }
            taken += count
        }
        if taken > 0 { wakeUp() }
        return taken > 0 ? .bytes(taken) : .wouldBlock
    }

    /// Takes a backend's final head as it came.
    /// - Returns: False when it must come as text, by `send`.
    func sendHead(
        _ bytes: Span<UInt8>, _ head: ResponseHead, _ table: FieldTable, _ additions: HeadWriter.ResponseAdditions
    ) -> Bool {
        let framing: BodyFraming = additions.writesChunks ? .chunked : head.framing
        guard isServer, !isClosed, !isHeadSent, !head.isInterim, framing != .untilClose,
            session.submitResponse(bytes, head, table, additions, hasBody: framing.rawBytesMax != 0, of: self)
        else { return false }
        headSubmitted(framing)
        wakeUp()
        return true
    }

    /// Takes a client's head as it came.
    /// - Returns: False when it must come as text, by `send`.
    func sendHead(
        _ bytes: Span<UInt8>, _ head: RequestHead, _ table: FieldTable, peer: Span<UInt8>,
        _ additions: HeadWriter.RequestAdditions
    ) -> Bool {
        guard !isServer, !isClosed, !isHeadSent, !opensTunnel,
            session.submitRequest(bytes, head, table, peer: peer, additions, of: self)
        else { return false }
        headSubmitted(head.framing)
        wakeUp()
        return true
    }

    private func headSubmitted(_ framing: BodyFraming) {
        isHeadSent = true
        rawBytesLeft = framing.rawBytesMax
        if rawBytesLeft < 0 { startReader(framing) }
        guard rawBytesLeft == 0 else { return }
        hasOutboundEnded = true
        hasSentEnd = true
    }

    /// Not inlined, so that the check of this access is not made for each piece that is sent.
    @inline(never)
    private func startReader(_ framing: BodyFraming) { reader = BodyReader(framing) }

    /// - Returns: Bytes of the head; -1 when this proxy has written what it cannot read.
    private func takeHead(_ buffer: ByteBuffer, countMax: Int) -> Int {
        let bytes = buffer.readable.extracting(first: countMax)
        guard let head = session.submitHead(bytes, of: self) else { return -1 }
        if head.isFinal { headSubmitted(head.framing) }
        buffer.consume(head.bytes)
        return head.bytes
    }

    private func takeBody(_ buffer: ByteBuffer, countMax: Int) -> Int {
        guard !hasOutboundEnded, let output = outboundRoom() else { return 0 }
        if rawBytesLeft >= 0 { return takeRaw(buffer, countMax: countMax, to: output) }
        let bytes = buffer.readable.extracting(first: min(countMax, output.writableBytes))
        var index = 0
        switch reader.next(bytes, &index) {
        case .data(let range): output.append(bytes.extracting(range))
        case .needsMore, .finished: break
        case .malformed: return -1
        }
        buffer.consume(index)
        if reader.isFinished {
            hasOutboundEnded = true
            outboundTrailers = Trailers.forwardable(reader.trailers)
        }
        if output.isEmpty { dropOutbound() }
        return index
    }

    private func takeRaw(_ buffer: ByteBuffer, countMax: Int, to output: ByteBuffer) -> Int {
        let count = min(countMax, output.writableBytes, rawBytesLeft)
        output.append(buffer.readable.extracting(first: count))
        buffer.consume(count)
        if rawBytesLeft != .max { rawBytesLeft -= count }
        if rawBytesLeft == 0, !isEndHeld { hasOutboundEnded = true }
        return count
    }

    override var sendBytesMax: Int {
        let size = session.outboundRoom(self).rawValue
        return max(size - (outbound?.readableBytes ?? 0), Self.freeBytes)
    }

    /// Some free room, nil while enough waits.
    private func outboundRoom() -> ByteBuffer? {
        guard let current = outbound else {
            let isLengthKnown = rawBytesLeft >= 0 && rawBytesLeft != .max
            let wanted = isLengthKnown ? min(rawBytesLeft, Self.outboundBytesMax) : BufferPool.Size.medium.rawValue
            let isSmall = wanted <= Self.freeBytes
            let fresh = buffers.take(holding: isSmall ? wanted : min(wanted, session.outboundRoom(self).rawValue))
            outbound = fresh
            if fresh.capacity > Self.freeBytes { updateHeld() }
            return fresh
        }
        if current.writableBytes >= current.capacity / 4 { return current }
        current.compact()
        if current.writableBytes >= current.capacity / 4 { return current }
        let size = current.capacity < Self.outboundBytesMax ? session.outboundRoom(self) : .large
        guard current.capacity < size.rawValue else { return current.writableBytes > 0 ? current : nil }
        let larger = buffers.take(size)
        larger.append(current.readable)
        buffers.give(current)
        outbound = larger
        updateHeld()
        return larger
    }

    /// There is something to write.
    private func wakeUp() {
        hasSubmitted = true
        if isDeferred {
            isDeferred = false
            session.resume(self)
        }
        session.startedSending(self)
    }

    /// Trailers may follow a body whose length is known.
    var mayHaveTrailers: Bool { framing == .raw && !(hasInboundEnded && trailers.isEmpty) }

    override var endOfMessage: [UInt8]? { hasInboundEnded ? trailers : nil }

    /// The end will be said by `endMessage`.
    func holdEnd() { isEndHeld = true }

    override func endMessage(trailers: [UInt8]) {
        guard isEndHeld, rawBytesLeft == 0, !isClosed else { return }
        isEndHeld = false
        if !trailers.isEmpty { outboundTrailers = Trailers.forwardable(trailers + [0x0D, 0x0A]) }
        hasOutboundEnded = true
        wakeUp()
    }

    /// Only a tunnel ends without its text saying so.
    override func finishSending() {
        guard !isClosed, !hasOutboundEnded, isHeadSent, isTunnel else { return }
        hasOutboundEnded = true
        wakeUp()
    }

    /// The proxy lets go. What has begun and not ended is reset, so that the peer sees it.
    override func close(isReset: Bool) {
        downstream = nil
        upstream = nil
        isAbandoned = true
        dropInbound()
        guard !isClosed else { return }
        if isServer {
            session.ownerLeft(self, isAnswered: hasOutboundEnded && !hasUnsentBytes)
        } else if id == 0 {
            session.forget(self)
        } else if isUnfinished {
            session.reset(self, code: .cancel)
        }
    }
}
