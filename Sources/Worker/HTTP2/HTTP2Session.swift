import CShims
import ShmRing

/// One end of an HTTP/2 connection: owns libnghttp2's session and the streams on it. No I/O: bytes go in by
/// `receive`, come out by `write`, and what happened to streams is asked for with `nextTouched`.
///
/// The callbacks (`HTTP2Callbacks`) only note things down. Nothing is freed and no event reaches the proxy inside
/// one; the proxy looks afterwards. The session keeps its streams alive, and libnghttp2 knows them by pointers
/// without ownership, valid until `forget`.
@safe
final class HTTP2Session {
    enum Role { case server, client }

    /// What the peer's first SETTINGS, or later ones, say.
    struct PeerSettings: Equatable {
        var streamsMax: UInt32 = 100
        var windowBytes: UInt32 = 65535
        var allowsExtendedConnect = false
    }

    /// The last GOAWAY.
    struct Goaway: Equatable {
        var lastStreamID: Int32
        var errorCode: UInt32
        var debugData: [UInt8]

        /// The server wants its requests over HTTP/1.1.
        var wantsHTTP1: Bool { errorCode == HTTP2ErrorCode.http11Required.rawValue }

        /// What is kept of the debug data.
        static let debugBytesMax = 256
    }

    /// Room in the output that the largest frame takes.
    private static let frameBytesMax = 16384 + 256

    let role: Role
    let context: HTTP2Context
    /// libnghttp2's session. Asking for it wakes it.
    var raw: OpaquePointer {
        if isPacked { unpack() }
        return unsafe made
    }
    private let made: OpaquePointer
    /// What it lies in; nil where that is malloc's.
    let memory: OpaquePointer?
    // Kept by `HTTP2Memory`.
    var isPacked = false
    /// Its place among those that are awake.
    var awakePlace = 0
    /// Something has happened since the last look.
    var wasActive = true
    /// Looks in a row that found nothing, and how many of them it takes.
    var quietPeriods: UInt8 = 0
    var quietPeriodsWanted: UInt8 = 1
    /// Frames of DATA do not count.
    private(set) var longestFrameBytes = 0
    /// The connection that it speaks over, to a client or to a backend; set by the proxy.
    var downstream: DownstreamConnection?
    var upstream: UpstreamConnection?
    var isMarkedDirty = false
    /// The last time that frames were to be written, the connection did not take all of them.
    var isBlocked = false
    let streams = ObjectList<HTTP2Stream>(capacity: 0)
    let touched = ObjectList<HTTP2Stream>(capacity: 0)
    private var touchedIndex = 0
    /// Where `write` writes, while it does.
    private var writing: ByteBuffer?
    let sending = ObjectList<HTTP2Stream>(capacity: 0)
    /// Streams that were answered early and whose requests still come, the oldest first.
    var discarding: ContiguousArray<HTTP2Stream> = []

    // The header block that comes in.
    var requestBlock: RequestBlock { keptRequestBlock ?? newRequestBlock() }
    var responseBlock: ResponseBlock { keptResponseBlock ?? newResponseBlock() }
    var keptRequestBlock: RequestBlock?
    var keptResponseBlock: ResponseBlock?
    var trailerBlock = TrailerBlock()
    var blockStream: HTTP2Stream?
    var isTrailerBlock = false

    // What the peer said about the connection.
    var peerSettings = PeerSettings()
    var settingsCount = 0
    var goaway: Goaway?
    /// Those that nobody has looked at yet, the last few of them.
    private var newGoaways: [Goaway] = []
    private static let newGoawaysMax = 8
    var pingAckCount = 0
    /// The peer has taken our SETTINGS over.
    var areSettingsAcknowledged = false
    /// The connection cannot go on.
    private(set) var isDead = false
    /// How the connection to a backend was lost.
    private(set) var loss = ErrorType.upstreamProtocolError
    /// Bytes of DATA that wait in streams.
    var waitingBytes = 0
    var patience = HTTP2Patience()
    /// The last stream that a client has opened, and numbers before it that it left out, the latest of them.
    var lastRequestID: Int32 = -1
    var leftOutIDs: [Range<Int32>] = []
    /// Whether there are any: cheaper to ask for each block than the array.
    var hasLeftOut = false
    static let leftOutIDsMax = 8
    /// The peer has been told that it asks too much.
    private var isCalmed = false
    /// Names and values of the header block that comes in, with something for each field.
    var blockBytes = 0
    /// Memory that the streams hold, and since when it is much.
    private var heldBytes = 0
    private var largeSinceNs: UInt64 = 0
    /// The part of it that waits for the peer, and that of requests' heads.
    var outboundBytes = 0
    var headBytes = 0
    /// Streams may send nothing unasked (`HTTP2Windows`), and since when.
    var isTight = false
    var tightSinceNs: UInt64 = 0
    /// Its peer waits for memory (`Proxy.mustWait`).
    var isPostponed = false
    /// By how much the windows of streams are larger than the first one.
    var raisedBytes = 0

    init(_ role: Role, _ context: HTTP2Context) {
        self.role = role
        self.context = context
        unsafe memory = context.memory.take()
        unsafe made = Self.makeSession(role, memory)
        unsafe nghttp2_session_set_user_data(made, Unmanaged.passUnretained(self).toOpaque())
        if unsafe memory != nil { context.memory.wakes(self, nowNs: context.nowNs) }
        submitSettings()
    }

    deinit {
        // Deleting runs no callback.
        unsafe nghttp2_session_del(raw)
        guard let memory = unsafe memory else { return }
        context.memory.leaves(self)
        unsafe lb_session_memory_give(memory)
    }

    private static func makeSession(_ role: Role, _ memory: OpaquePointer?) -> OpaquePointer {
        var callbacks: OpaquePointer?
        var option: OpaquePointer?
        var session: OpaquePointer?
        guard unsafe nghttp2_session_callbacks_new(&callbacks) == 0, unsafe nghttp2_option_new(&option) == 0,
            let callbacks = unsafe callbacks, let option = unsafe option
        else { fatalError("no memory for an HTTP/2 session") }
        unsafe HTTP2Callbacks.install(on: callbacks)
        unsafe nghttp2_option_set_no_auto_window_update(option, 1)
        // A server tells frames on streams that have closed from those that never were (RFC 9113 §5.1); what a
        // backend sends there has no such consequence.
        if role == .client { unsafe nghttp2_option_set_no_closed_streams(option, 1) }
        unsafe nghttp2_option_set_peer_max_concurrent_streams(option, 100)
        unsafe nghttp2_option_set_max_send_header_block_length(option, 4 << 20)
        // Resets are counted here (`HTTP2Patience`), with those that a peer makes us send.
        unsafe nghttp2_option_set_stream_reset_rate_limit(option, 1 << 40, 1 << 40)
        // The context is set once the object exists: no callback runs before.
        let make = unsafe role == .server ? nghttp2_session_server_new3 : nghttp2_session_client_new3
        var status: Int32
        if let memory = unsafe memory {
            var functions = unsafe lb_session_memory_functions(memory)
            status = unsafe make(&session, callbacks, nil, option, &functions)
            unsafe lb_session_memory_made(memory)
        } else {
            status = unsafe make(&session, callbacks, nil, option, nil)
        }
        unsafe nghttp2_option_del(option)
        unsafe nghttp2_session_callbacks_del(callbacks)
        guard status == 0, let made = unsafe session else { fatalError("no memory for an HTTP/2 session") }
        return unsafe made
    }

    private func submitSettings() {
        let limits = context.limits
        var entries: [nghttp2_settings_entry] = [
            Self.setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits.firstWindowBytes)
        ]
        if role == .server {
            entries.append(Self.setting(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.streamsMax))
            entries.append(Self.setting(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.requestFieldBytesMax))
            entries.append(Self.setting(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1))
        } else {
            entries.append(Self.setting(NGHTTP2_SETTINGS_ENABLE_PUSH, 0))
            entries.append(Self.setting(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.responseFieldBytesMax))
        }
        submit(entries)
        let flags = UInt8(NGHTTP2_FLAG_NONE.rawValue)
        _ = unsafe nghttp2_session_set_local_window_size(raw, flags, 0, Int32(limits.connectionWindowBytes))
        markDirty()
    }

    @discardableResult
    func submit(_ settings: [nghttp2_settings_entry]) -> Bool {
        unsafe settings.withUnsafeBufferPointer { settings in
            unsafe nghttp2_submit_settings(
                raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), settings.baseAddress, settings.count) == 0
        }
    }

    static func setting(_ id: nghttp2_settings_id, _ value: Int) -> nghttp2_settings_entry {
        nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: UInt32(value))
    }

    // MARK: Bytes in and out

    /// Takes what the peer sent.
    func receive(_ bytes: Span<UInt8>) {
        guard !isDead, bytes.count > 0 else { return }
        patience.received(bytes.count, nowNs: context.nowNs)
        let count = unsafe bytes.withUnsafeBufferPointer { bytes in
            unsafe nghttp2_session_mem_recv(raw, bytes.baseAddress, bytes.count)
        }
        if count < 0 { broke(count) }
        if !patience.lasts() { calm() }
        settleWindows()
        markDirty()
    }

    /// libnghttp2 cannot go on.
    private func broke(_ error: Int) {
        isDead = true
        switch nghttp2_error(Int32(clamping: error)) {
        case NGHTTP2_ERR_FLOODED: patience.exhaust(.unreadAnswers)
        case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS: patience.exhaust(.continuations)
        default: break
        }
    }

    /// The peer asks more than it may: GOAWAY, and nothing after it.
    private func calm() {
        guard !isCalmed else { return }
        isCalmed = true
        terminate(.enhanceYourCalm)
    }

    /// Ends the connection for a cause that shows outside of its bytes.
    func calm(_ cause: HTTP2Patience.Cause) {
        patience.exhaust(cause)
        calm()
    }

    /// A field of the block that comes in.
    /// - Returns: False when there have been too many; then the connection has ended.
    func countField(bytes: Int) -> Bool {
        blockBytes += bytes + 32
        let limits = context.limits
        let bytesMax = role == .server ? limits.requestFieldBytesMax : limits.responseFieldBytesMax
        guard blockBytes > limits.blockTimesMax * bytesMax else { return true }
        // libnghttp2 reads nothing more, not even the rest of what it has got.
        calm(.fieldBytes)
        return false
    }

    /// A stream holds more memory, or less. A backend is not to blame for what its clients do not take.
    func held(_ bytes: Int) {
        let wasLarge = heldBytes > context.limits.heldNoticeBytes
        heldBytes += bytes
        context.held(bytes)
        let isLarge = heldBytes > context.limits.heldNoticeBytes
        if role == .server, isLarge != wasLarge {
            largeSinceNs = context.nowNs
            isLarge ? context.holds(self) : context.holdsNoMore(self)
        }
        if bytes > 0 { context.relieveMemory() }
    }

    /// It has held more than its share for a while and takes less than that: who reads what waits for it is not to
    /// blame for a worker that is short of memory.
    func endIfHoarding(share: Int) {
        guard heldBytes > share, patience.isHoarding(heldBytes, nowNs: context.nowNs) else { return }
        let limits = context.limits
        let patienceNs = patience.isStill ? limits.stillPatienceNs : limits.heldPatienceNs
        if context.nowNs >= largeSinceNs &+ patienceNs { calm(.memory) }
    }

    /// It holds much that could move, and nothing has ever moved, or not for a long time.
    func endIfStill() {
        let limits = context.limits
        guard heldBytes - headBytes > limits.heldNoticeBytes, context.nowNs >= largeSinceNs &+ limits.heldPatienceNs
        else { return }
        if patience.isHoarding(heldBytes, nowNs: context.nowNs), patience.isStill { calm(.memory) }
    }

    /// Writes frames for the peer into `output`, as many as fit.
    /// - Returns: True when nothing is left to write.
    func write(to output: ByteBuffer) -> Bool {
        writing = output
        defer { writing = nil }
        while output.writableBytes >= Self.frameBytesMax {
            var frame: UnsafePointer<UInt8>?
            let count = unsafe nghttp2_session_mem_send(raw, &frame)
            guard count > 0, let frame = unsafe frame else {
                // `writeData` has made a pause.
                if count == 0, output.writableBytes < Self.frameBytesMax { return false }
                if count < 0 { isDead = true }
                noticeDrained()
                guard isCalmed || patience.lasts() else {
                    calm()
                    continue
                }
                return true
            }
            if count > longestFrameBytes { longestFrameBytes = count }
            unsafe output.append(UnsafeBufferPointer(start: frame, count: count).span)
        }
        return false
    }

    /// Writes one frame of DATA, straight from the stream to where `write` writes.
    func writeData(_ head: Span<UInt8>, _ count: Int, of stream: HTTP2Stream) -> nghttp2_error {
        guard let output = writing, output.writableBytes >= head.count + count else { return NGHTTP2_ERR_WOULDBLOCK }
        output.append(head)
        guard stream.moveOutbound(count, to: output) else { return NGHTTP2_ERR_CALLBACK_FAILURE }
        return output.writableBytes < Self.frameBytesMax ? NGHTTP2_ERR_PAUSE : nghttp2_error(rawValue: 0)
    }

    /// Room that `write` wants at least.
    static var outputBytesMin: Int { frameBytesMax }

    /// Nothing more will be read and nothing is left to write: the connection is over.
    var isFinished: Bool {
        unsafe nghttp2_session_want_read(raw) == 0 && nghttp2_session_want_write(raw) == 0
    }

    /// A header block has begun and not ended.
    var isInBlock: Bool { blockStream != nil }

    /// A stream number beyond this is near enough to the last one for the connection to be left.
    private static let streamIDMax: Int32 = 1 << 30

    /// There are few numbers left for streams of our own (RFC 9113 §5.1.1).
    var isShortOfStreams: Bool { nextStreamID > Self.streamIDMax }

    /// The number that the next stream of our own will have.
    var nextStreamID: Int32 { Int32(clamping: unsafe nghttp2_session_get_next_stream_id(raw)) }

    func markDirty() {
        guard !isMarkedDirty else { return }
        isMarkedDirty = true
        wasActive = true
        context.markDirty(self)
    }

    /// Streams of which everything has left tell the proxy so.
    private func noticeDrained() {
        var index = 0
        while index < sending.count {
            let stream = sending[index]
            if stream.isClosed || stream.noticeDrained() {
                _ = sending.swapRemove(index)
                stream.isInSending = false
                if stream.isWaitingForRest { discardRest(of: stream) }
                stream.news.hasDrained = true
                touch(stream)
            } else {
                index += 1
            }
        }
    }

    // MARK: Streams

    /// The next stream that something happened to.
    func nextTouched() -> HTTP2Stream? {
        guard touchedIndex < touched.count else {
            if touchedIndex > 0 { touched.removeAll() }
            touchedIndex = 0
            return nil
        }
        let stream = touched[touchedIndex]
        touchedIndex += 1
        stream.isInTouched = false
        return stream
    }

    func touch(_ stream: HTTP2Stream) {
        guard !stream.isInTouched else { return }
        stream.isInTouched = true
        touched.append(stream)
    }

    func startedSending(_ stream: HTTP2Stream) {
        markDirty()
        guard !stream.isInSending else { return }
        stream.isInSending = true
        sending.append(stream)
    }

    /// Lets go of a stream that is closed. What it received stays for its owner.
    func forget(_ stream: HTTP2Stream) {
        let place = stream.place
        guard place < streams.count, streams[place] === stream else { return }
        _ = streams.swapRemove(place)
        if place < streams.count { streams[place].place = place }
        raisedBytes -= stream.raisedBytes
        stream.raisedBytes = 0
        stream.dropOutbound()
        stream.holdsLittle()
    }

    /// A stream of this session, in its list.
    func newStream(id: Int32) -> HTTP2Stream {
        let stream = context.freeStreams.take() ?? HTTP2Stream()
        stream.begin(on: self, id: id, place: streams.count)
        streams.append(stream)
        return stream
    }

    /// The connection is gone, and every stream with it.
    func closeAll(code: HTTP2ErrorCode, _ loss: ErrorType = .upstreamClosed) {
        isDead = true
        self.loss = loss
        // Nothing of what these hold will leave, and they hold this session.
        sending.removeAll()
        discarding.removeAll()
        blockStream = nil
        for index in 0..<streams.count {
            let stream = streams[index]
            guard !stream.isClosed else { continue }
            stream.closed(errorCode: isUnprocessed(stream) ? HTTP2ErrorCode.refusedStream.rawValue : code.rawValue)
            stream.news.hasClosed = true
            touch(stream)
        }
    }

    /// Whether the server cannot have processed a stream that the connection's end has cut: nothing of it has been
    /// written, or it is above the last one of a GOAWAY, which libnghttp2 does not tell of those that it holds back.
    private func isUnprocessed(_ stream: HTTP2Stream) -> Bool {
        guard role == .client, stream.id > 0 else { return false }
        if let goaway, stream.id > goaway.lastStreamID { return true }
        return unsafe nghttp2_session_get_stream_local_close(raw, stream.id) < 0
    }

    /// A stream of our own. The request's head decides its number.
    func openStream() -> HTTP2Stream { newStream(id: 0) }

    func resume(_ stream: HTTP2Stream) {
        _ = unsafe nghttp2_session_resume_data(raw, stream.id)
    }

    /// The proxy is done with a stream of a client.
    func ownerLeft(_ stream: HTTP2Stream, isAnswered: Bool) {
        guard isAnswered else {
            return reset(stream, code: stream.isTunnel ? .cancel : .internalError)
        }
        guard !stream.hasInboundEnded else { return }
        if stream.hasSentEnd, !stream.isInSending { return discardRest(of: stream) }
        stream.isWaitingForRest = true
    }

    func reset(_ stream: HTTP2Stream, code: HTTP2ErrorCode) {
        stream.dropOutbound()
        submitReset(stream, code)
    }

    func submitReset(_ stream: HTTP2Stream, _ code: HTTP2ErrorCode, isPeersFault: Bool = false) {
        guard !isDead, !stream.isClosed, stream.id != 0, !stream.isResetting else { return }
        stream.isResetting = true
        stream.wasResetHere = !isPeersFault
        stream.isWaitingForRest = false
        if !isPeersFault, !stream.hasInboundEnded {
            patience.expectLate(context.limits.firstWindowBytes + stream.raisedBytes)
        }
        _ = unsafe nghttp2_submit_rst_stream(raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, code.rawValue)
        markDirty()
    }

    // MARK: The connection

    /// The GOAWAYs that came since the last call.
    func takeGoaways() -> [Goaway] {
        guard !newGoaways.isEmpty else { return [] }
        defer { newGoaways = [] }
        return newGoaways
    }

    func note(_ goaway: Goaway) {
        self.goaway = goaway
        if newGoaways.count < Self.newGoawaysMax { newGoaways.append(goaway) }
    }

    /// GOAWAY that refuses nothing yet (RFC 9113 §6.8), and a PING whose answer shows that it has arrived.
    func announceShutdown() {
        _ = unsafe nghttp2_submit_shutdown_notice(raw)
        ping()
    }

    func ping() {
        _ = unsafe nghttp2_submit_ping(raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
        markDirty()
    }

    /// GOAWAY with the last stream that will be served.
    func submitGoaway(_ code: HTTP2ErrorCode) {
        let last = unsafe nghttp2_session_get_last_proc_stream_id(raw)
        _ = unsafe nghttp2_submit_goaway(raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, code.rawValue, nil, 0)
        markDirty()
    }

    /// GOAWAY, and nothing after it.
    func terminate(_ code: HTTP2ErrorCode) {
        _ = unsafe nghttp2_session_terminate_session(raw, code.rawValue)
        markDirty()
    }
}
