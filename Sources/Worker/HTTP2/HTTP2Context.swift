/// What all HTTP/2 connections of a worker share: memory, parsers, and the list of those that have something to
/// write at the end of the turn.
final class HTTP2Context {
    struct Limits {
        /// Streams that a client may have open at once.
        var streamsMax = 128
        /// Body bytes that a peer may send on a stream before any of them is taken, announced as its window.
        var firstWindowBytes = 64 * 1024
        /// The window of a stream whose bytes are taken as they come: what waits here of one stream at most.
        var streamWindowBytes = 256 * 1024
        /// The window of a stream from which more is wanted while much waits on others.
        var tightWindowBytes = 16 * 1024
        /// Body bytes of all streams of a connection together that wait here at most, announced as its window.
        var connectionWindowBytes = 16 * 1024 * 1024
        /// What streams of one connection hold for its peer at most, beyond what each of them may always have.
        var outboundBytesMax = 1024 * 1024
        /// Names and values of a request's fields.
        var requestFieldBytesMax = 32 * 1024
        /// The same for a response.
        var responseFieldBytesMax = 64 * 1024
        /// A header block, with 32 bytes for each field, that is this many times as large ends its connection.
        var blockTimesMax = 8
        /// Memory in which streams of a worker keep bodies and heads, beyond what each of them may always have: from
        /// where on less is read of what nobody takes, and clients' connections on which nothing moves are ended; from
        /// where on it is as little as can be; and from where on backends that send it must wait, and clients'
        /// connections that hold more than their share are ended.
        var tightBytes = 12 * 1024 * 1024
        var shortBytes = 18 * 1024 * 1024
        var fullBytes = 24 * 1024 * 1024
        var heldShareBytes = 1024 * 1024
        /// Connections that hold more than this are looked at then.
        var heldNoticeBytes = 64 * 1024
        /// How long they may have done so before, and those on which nothing at all has moved.
        var heldPatienceNs: UInt64 = 500_000_000
        var stillPatienceNs: UInt64 = 20_000_000
        /// How long peers wait for memory. Whoever is to blame for it is gone by then; what still holds it are streams of
        /// peers that nobody is to blame for, and the others on their connections cannot wait until those end.
        var waitNsMax: UInt64 = 1_000_000_000
        /// How much of a request is read and thrown away once its answer is out, over how long a silence, and how long in
        /// all; how many of a connection's streams may be in that state.
        var discardBytesMax = 64 * 1024 * 1024
        var discardNs: UInt64 = 2_000_000_000
        var discardNsMax: UInt64 = 30_000_000_000
        var discardingMax = 16
    }

    let limits: Limits
    let buffers: BufferPool
    let memory = HTTP2Memory()
    /// Reads heads that this proxy wrote: their limits leave room for what it added.
    let requestParser: RequestParser
    let responseParser: ResponseParser
    let table = FieldTable()
    let fields = FieldList()
    /// For values that are put together.
    let scratch = ByteBuffer(capacity: 64)
    /// Streams that wait for their next use.
    let freeStreams = ReuseList<HTTP2Stream>(countMax: 256)
    /// The time of this turn.
    var nowNs: UInt64 = 0
    /// How scarce memory for what streams hold is.
    enum Scarcity: Int {
        case plenty, tight, short, full
    }

    /// What streams of all connections hold.
    private(set) var heldBytes = 0
    private(set) var scarcity = Scarcity.plenty
    private var fullSinceNs: UInt64 = 0
    /// Sessions with clients that hold much, and when they were looked at last.
    private var holders: ContiguousArray<HTTP2Session> = []
    private var relievedNs: UInt64 = 0
    private var random = SystemRandomNumberGenerator()
    /// Sessions with something to write.
    private var dirty: ContiguousArray<HTTP2Session> = []
    private var flushing: ContiguousArray<HTTP2Session> = []

    init(_ limits: Limits, _ buffers: BufferPool) {
        self.limits = limits
        self.buffers = buffers
        let requestBytes = 2 * limits.requestFieldBytesMax + 65536
        requestParser = RequestParser(
            limits: RequestParser.Limits(headBytesMax: requestBytes, targetBytesMax: requestBytes, fieldsMax: 1100))
        responseParser = ResponseParser(headBytesMax: 2 * limits.responseFieldBytesMax + 65536)
    }

    func holds(_ session: HTTP2Session) { holders.append(session) }

    func holdsNoMore(_ session: HTTP2Session) { holders.removeAll { $0 === session } }

    /// Streams hold more, or less.
    func held(_ bytes: Int) {
        heldBytes += bytes
        let risen = level(heldBytes)
        if risen.rawValue > scarcity.rawValue {
            if risen == .full { fullSinceNs = nowNs }
            return scarcity = risen
        }
        // It is a while before there is as much again.
        let fallen = level(heldBytes + heldBytes / 3)
        if fallen.rawValue < scarcity.rawValue { scarcity = fallen }
    }

    private func level(_ bytes: Int) -> Scarcity {
        if bytes <= min(limits.tightBytes, limits.fullBytes) { return .plenty }
        if bytes > limits.fullBytes { return .full }
        return bytes > limits.shortBytes ? .short : .tight
    }

    /// How much to read of a message that nobody may want to take.
    var readSize: BufferPool.Size {
        switch scarcity {
        case .plenty: .large
        case .tight: .medium
        case .short, .full: .small
        }
    }

    /// There is no memory for more from peers of whose bytes some wait.
    var isWaitingForMemory: Bool { scarcity == .full && nowNs < fullSinceNs &+ limits.waitNsMax }

    func mustWait(_ session: HTTP2Session) -> Bool {
        isWaitingForMemory && session.waitingBytes > limits.heldNoticeBytes
    }

    /// Where streams hold much, looks for those to blame, a hundred times a second.
    func relieveMemory() {
        guard scarcity != .plenty, nowNs >= relievedNs &+ 10_000_000 else { return }
        relievedNs = nowNs
        let share = min(limits.heldShareBytes, limits.fullBytes / max(1, holders.count))
        for session in holders { scarcity == .full ? session.endIfHoarding(share: share) : session.endIfStill() }
    }

    var hasDirty: Bool { !dirty.isEmpty }

    func markDirty(_ session: HTTP2Session) { dirty.append(session) }

    /// Does something for every session that has something to write; those that become so meanwhile come next
    /// time.
    func forEachDirty(_ body: (HTTP2Session) -> Void) {
        guard !dirty.isEmpty else { return }
        swap(&dirty, &flushing)
        for session in flushing {
            session.isMarkedDirty = false
            body(session)
        }
        flushing.removeAll(keepingCapacity: true)
    }

    /// Base64 of 16 random bytes (RFC 6455 §4.1).
    func newWebSocketKey() -> InlineArray<24, UInt8> {
        let alphabet: StaticString = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        var key = InlineArray<24, UInt8>(repeating: UInt8(ascii: "="))
        let words: InlineArray<2, UInt64> = [random.next(), random.next()]
        for index in 0..<22 {
            // 21 characters of 6 bits each, and one of 2.
            let bits = index < 10 ? words[0] >> UInt64(index * 6) : words[1] >> UInt64((index - 10) * 5)
            let value = index == 21 ? (bits & 3) << 4 : bits & 63
            key[index] = alphabet.byte(at: Int(value))
        }
        return key
    }
}
