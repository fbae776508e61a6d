/// The life of one connection to a backend, kept as numbers until it ends and its trace is written. Bounded: the notes
/// are few, and the rest are numbers.
final class ConnectionHistory {
    /// Something that happened on the connection.
    enum Note: Equatable {
        case settings(HTTP2Session.PeerSettings)
        /// A PING was answered.
        case ping(rttNs: UInt64)
        case goaway(HTTP2Session.Goaway)
    }

    /// Of each kind the first and the last of them are kept.
    static let notesMax = 8

    /// Number of the connection within the worker.
    let number: UInt64
    let startedNs: UInt64
    let startedUnixNs: UInt64
    /// The attempt that made it, as it stood when the making ended; its times are those of the handshakes.
    private(set) var making = AttemptRecord()
    private(set) var handshake: HandshakeFacts?
    /// The spans of an attempt that is written refer to it.
    private(set) var isWanted = false
    private(set) var requestsStarted = 0
    /// Of HTTP/2: streams whose response came to its end.
    private(set) var streamsAnswered = 0
    /// In the order in which they happened.
    private(set) var notes: ContiguousArray<(note: Note, atNs: UInt64)> = []
    private(set) var settingsCount = 0
    private(set) var goawayCount = 0
    private(set) var pings = PingTimes()
    private(set) var closeReason: CloseReason?
    /// Set where the end was a failure.
    private(set) var error: ErrorType?

    init(number: UInt64, startedNs: UInt64, startedUnixNs: UInt64) {
        self.number = number
        self.startedNs = startedNs
        self.startedUnixNs = startedUnixNs
    }

    /// A request has to do with the connection: if it is written, it has a link there.
    @inline(__always)
    func isSeen(by identity: TraceIdentity) {
        if identity.isSampled { isWanted = true }
    }

    @inline(__always)
    func requestStarted(_ identity: TraceIdentity) {
        requestsStarted += 1
        isSeen(by: identity)
    }

    func streamAnswered() { streamsAnswered += 1 }

    /// The making is over, well or not.
    func made(by exchange: Exchange) {
        making = exchange.attempt
        handshake = exchange.handshakes.last { $0.attempt == exchange.attemptCount - 1 }
    }

    func settingsReceived(_ settings: HTTP2Session.PeerSettings, atNs: UInt64) {
        settingsCount += 1
        keep(.settings(settings), count: settingsCount, atNs: atNs) { if case .settings = $0 { true } else { false } }
    }

    func goawayReceived(_ goaway: HTTP2Session.Goaway, atNs: UInt64) {
        goawayCount += 1
        keep(.goaway(goaway), count: goawayCount, atNs: atNs) { if case .goaway = $0 { true } else { false } }
    }

    func pingSent(atNs: UInt64) { pings.sent(atNs: atNs) }

    func pingAnswered(atNs: UInt64) {
        guard let rttNs = pings.answered(atNs: atNs) else { return }
        keep(.ping(rttNs: rttNs), count: pings.count, atNs: atNs) { if case .ping = $0 { true } else { false } }
    }

    /// Why the connection ends. The first reason is the one that counts, as what follows follows from it; an error
    /// may come with a later one.
    func closes(_ reason: CloseReason, _ error: ErrorType? = nil) {
        if closeReason == nil { closeReason = reason }
        if self.error == nil { self.error = error }
    }

    /// Where all places of a kind are taken, the second of it makes room.
    private func keep(_ note: Note, count: Int, atNs: UInt64, isAlike: (Note) -> Bool) {
        if count > Self.notesMax, let first = notes.firstIndex(where: { isAlike($0.note) }),
            let second = notes[(first + 1)...].firstIndex(where: { isAlike($0.note) })
        {
            notes.remove(at: second)
        }
        notes.append((note, atNs))
    }
}

/// Round-trip times of PINGs.
struct PingTimes: Equatable {
    private(set) var count = 0
    private(set) var minNs = UInt64.max
    private(set) var maxNs: UInt64 = 0
    private var outstanding = 0
    /// When the one that is outstanding was sent, 0 when that is not known.
    private var sentNs: UInt64 = 0

    /// Answers come in the order of the questions, but do not say which one they are to: only one that is outstanding
    /// alone is timed.
    mutating func sent(atNs: UInt64) {
        outstanding += 1
        sentNs = outstanding == 1 ? atNs : 0
    }

    /// - Returns: The round-trip time, nil when it is not known.
    mutating func answered(atNs: UInt64) -> UInt64? {
        guard outstanding > 0 else { return nil }
        outstanding -= 1
        guard sentNs > 0, atNs >= sentNs else { return nil }
        let rttNs = atNs - sentNs
        sentNs = 0
        count += 1
        minNs = min(minNs, rttNs)
        maxNs = max(maxNs, rttNs)
        return rttNs
    }
}
