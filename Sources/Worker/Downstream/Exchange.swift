/// One request and its response, from the first byte of the head to the last byte of the answer.
///
///     waitingForConnection ─► connecting ─► awaitingHead ─► streaming ─► finished
///               ▲                 │              │              └─ 101 ─► tunnel ─► finished
///               └──── retry ──────┴──────────────┘
///
/// Holds facts and progress; `Proxy` does what has to be done. Objects are reused from request to request.
final class Exchange {
    enum Phase: Equatable {
        case waitingForConnection
        case connecting
        case awaitingHead
        case streaming
        case tunnel
        /// An answer of this proxy's own is on its way.
        case answering
        case finished
    }

    /// The next one in the list of those that wait for their next use.
    var nextFree: Exchange?
    var phase = Phase.waitingForConnection
    /// Its number in the table of requests in flight, kept from use to use; -1 when it has none.
    var inflightEntry: Int32 = -1
    /// Nil only while the object waits for its next use.
    var downstream: DownstreamConnection?
    var upstream: UpstreamConnection?

    // The request.
    var head = RequestHead()
    /// The head's bytes and, when `wholeBody` says so, the body's behind them: what a further attempt and
    /// the trace are made of. Nil when the head could not be read.
    var retained: ByteBuffer?
    /// Bytes of `retained` that are the body with its framing; -1 when the body streams from the client.
    var wholeBodyBytes = -1
    /// Bytes of that body without its framing.
    var wholeDataBytes = 0
    let requestRelay = BodyRelay(.none, writesChunks: false)
    /// The backend would not take (all of) the request; nothing more is sent.
    var isRequestAbandoned = false
    /// The last pump of the request stopped because the backend's socket was full.
    var isRequestBlocked = false

    /// Heads of interim responses so far.
    var interimCount = 0

    // The response.
    var response = ResponseHead()
    let responseRelay = BodyRelay(.none, writesChunks: false)
    /// The last pump of the response stopped because the client's socket was full.
    var isResponseBlocked = false
    /// Whether the client's connection ends with this exchange.
    var mustClose = false
    /// The status that went to the client, 0 before one did.
    var statusSent = 0
    /// Body bytes of an answer of our own.
    var localBodyBytes = 0

    // Attempts.
    var attempt = AttemptRecord()
    private(set) var pastAttempts: [AttemptRecord] = []
    var attemptCount = 0
    /// Backends to which a connection failed for this request, one entry a failure.
    private(set) var connectFailures: [Int] = []
    /// Of the attempts that made a TLS connection.
    private(set) var handshakes: [HandshakeFacts] = []
    private var hasHandshakes = false
    /// The HTTP/2 connection that refused this request's last stream; its slot alone may be another's later.
    var refusingConnection: (slot: Int, generation: UInt32)?
    private(set) var goaways: [GoawayNote] = []
    /// Whether there is anything in the three lists: cheaper to ask than an array, most of the time.
    private(set) var hasFailures = false
    /// What this proxy's end of a tunnel has already sent a FIN to.
    var finishedClient = false
    var finishedBackend = false
    var retryDenied: (reason: RetryPolicy.Reason, verdict: RetryPolicy.Denial, atNs: UInt64)?

    // Times, monotonic ns; the realtime of `startedNs` is taken once.
    var startedNs: UInt64 = 0
    var startedUnixNs: UInt64 = 0
    var streamingStartNs: UInt64 = 0
    var endedNs: UInt64 = 0
    var error: ErrorType?
    /// The response's body ended early, for whatever reason.
    var hadBodyError = false
    var identity = TraceIdentity()
    /// Where the head has the user agent.
    var userAgent: Range<Int> = 0..<0
    /// The caller's `tracestate`, empty without one.
    private(set) var traceState: [UInt8] = []
    private(set) var hasTraceState = false

    /// Index of the backend of the last attempt that had one, -1 when none had.
    var lastEndpoint: Int { attempt.endpoint >= 0 ? attempt.endpoint : pastAttempts.last?.endpoint ?? -1 }

    /// Body bytes that went to the client.
    var responseBodyBytes: Int { localBodyBytes + responseRelay.bodyBytes }

    /// Of what the client's stream has taken, so much has not left.
    func discount(unsent bytes: Int) {
        let ofBackend = min(bytes, responseRelay.bodyBytes)
        responseRelay.notSent(ofBackend)
        localBodyBytes -= min(bytes - ofBackend, localBodyBytes)
    }

    /// Body bytes of the request: as announced, or as counted; nil when it has no body.
    var requestBodyBytes: Int? {
        switch head.framing {
        case .none, .untilClose: nil
        case .length(let count): count
        case .chunked: wholeBodyBytes >= 0 ? wholeDataBytes : requestRelay.bodyBytes
        }
    }

    /// The client holds its body back until the backend says 100 (RFC 9110 §10.1.1).
    var awaitsContinue: Bool { head.expectsContinue && interimCount == 0 && requestRelay.sourceBytesUsed == 0 }

    /// Whether everything of the request has been read from the client.
    var isRequestRead: Bool { (wholeBodyBytes >= 0 || requestRelay.isRead) && !requestRelay.handsOverEnd }

    /// Forgets everything, for the next use.
    func reset() {
        phase = .waitingForConnection
        downstream = nil
        upstream = nil
        head = RequestHead()
        retained = nil
        wholeBodyBytes = -1
        wholeDataBytes = 0
        requestRelay.restart(.none, writesChunks: false)
        isRequestAbandoned = false
        isRequestBlocked = false
        interimCount = 0
        response = ResponseHead()
        responseRelay.restart(.none, writesChunks: false)
        isResponseBlocked = false
        mustClose = false
        statusSent = 0
        localBodyBytes = 0
        attempt = AttemptRecord()
        attemptCount = 0
        if hasFailures { forgetFailures() }
        if hasHandshakes { forgetHandshakes() }
        refusingConnection = nil
        finishedClient = false
        finishedBackend = false
        retryDenied = nil
        startedNs = 0
        startedUnixNs = 0
        streamingStartNs = 0
        endedNs = 0
        error = nil
        hadBodyError = false
        identity = TraceIdentity()
        userAgent = 0..<0
        if hasTraceState { forgetTraceState() }
    }

    /// Keeps the attempt that failed, before another one begins.
    func keepAttempt() {
        pastAttempts.append(attempt)
        hasFailures = true
    }

    /// No connection could be made to the backend of that index.
    func connectFailed(endpoint: Int) {
        connectFailures.append(endpoint)
        hasFailures = true
    }

    func keepHandshake(_ facts: HandshakeFacts) {
        handshakes.append(facts)
        hasHandshakes = true
    }

    /// A GOAWAY concerns this request's stream.
    func noteGoaway(_ note: GoawayNote) {
        guard goaways.count < Self.goawaysMax else { return }
        goaways.append(note)
        hasFailures = true
    }

    /// The last stream was opened on a connection that was being left, and never went out.
    func noteKeptBack() {
        for index in goaways.indices where goaways[index].attempt == attemptCount { goaways[index].wasKeptBack = true }
    }

    /// More of them are not kept.
    private static let goawaysMax = 8

    func keepTraceState(_ state: [UInt8]) {
        traceState = state
        hasTraceState = true
    }

    private func forgetFailures() {
        pastAttempts = []
        connectFailures = []
        goaways = []
        hasFailures = false
    }

    private func forgetHandshakes() {
        handshakes = []
        hasHandshakes = false
    }

    private func forgetTraceState() {
        traceState = []
        hasTraceState = false
    }
}
