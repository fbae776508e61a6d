import ShmRing

/// Writes each finished request's span tree into the worker's ring, in one go at the end: while the
/// request runs, tracing costs a few clock readings and stores.
final class Tracer {
    var producer: RingProducer
    private var random: IDGenerator
    let worker: Int
    let generation: UInt32
    let url = ByteBuffer(capacity: RequestURL.bytesMax)
    let inflight: InflightTable?
    /// Nil when connections to backends are not traced.
    let connectionIDs: ConnectionTraceIDs?
    /// When the worker began to drain; what ran then is told of it.
    private var drainStartedNs = UInt64.max

    /// - Parameters:
    ///   - inflight: Where requests are noted while they run, for the case that the worker dies.
    ///   - tracesConnections: Whether connections to backends have traces of their own.
    init(
        producer: consuming RingProducer, worker: Int, generation: UInt32, inflight: InflightTable? = nil,
        tracesConnections: Bool = false, random: IDGenerator = IDGenerator()
    ) {
        self.producer = producer
        self.inflight = inflight
        self.worker = worker
        self.generation = generation
        var random = random
        connectionIDs = tracesConnections ? ConnectionTraceIDs(&random) : nil
        inflight?.traces(connectionIDs)
        self.random = random
    }

    /// The identity of a request whose head says nothing.
    func identify() -> TraceIdentity { TraceIdentity(context: nil, &random) }

    /// The identity of a request by its head: the caller's trace goes on if exactly one valid `traceparent`
    /// is there (W3C Trace Context §3.2, §4.3).
    func identify(_ bytes: Span<UInt8>, _ table: FieldTable) -> TraceIdentity {
        guard table.count(of: .traceparent) == 1, let field = table.first(.traceparent) else { return identify() }
        return TraceIdentity(context: TraceContext(bytes.extracting(field.value)), &random)
    }

    /// From here on, trees of requests that ran at that moment say so.
    func drainStarted(atNs: UInt64) { drainStartedNs = atNs }

    func newSpanID() -> UInt64 { random.nextNonZero() }

    /// Room for the fixed part of a tree, of each attempt, and of each text.
    private static let rootBytes = 1024
    private static let attemptBytes = 1536
    private static let handshakeBytes = 1536
    private static let textBytesMax = TreeWriter.stringBytesMax + 16

    /// - Parameter strategy: Name of what chose the backends.
    func record(
        _ exchange: Exchange, _ client: DownstreamConnection, _ endpoints: [Endpoint], strategy: StaticString
    ) {
        guard exchange.identity.isSampled else { return }
        composeURL(exchange, isSecure: client.isSecure)
        if recordUsual(exchange, client, endpoints, strategy) { return }
        let attempts = exchange.pastAttempts.count + 1
        let urls = min(url.readableBytes + 8, Self.textBytesMax) * (attempts + 1)
        let texts = urls + (2 + exchange.goaways.count) * Self.textBytesMax + exchange.traceState.count
        let handshakes = exchange.handshakes.count * Self.handshakeBytes
        let wanted = Self.rootBytes + handshakes + attempts * (Self.attemptBytes + names(endpoints, exchange)) + texts
        let lost = producer.treesLost
        guard var tree = producer.reserve(bytesMax: min(wanted, 65536)) else { return }
        writeTree(exchange, client, endpoints, strategy, treesLost: lost, &tree)
        inflight?.publishing(exchange.inflightEntry, producer)
        producer.publish(tree)
    }

    /// Bytes that the names of the backend take in one attempt.
    private func names(_ endpoints: [Endpoint], _ exchange: Exchange) -> Int {
        guard exchange.lastEndpoint >= 0 else { return 0 }
        let endpoint = endpoints[exchange.lastEndpoint]
        let answers = endpoint.hostname == nil ? 0 : endpoint.addresses.count * 48
        return 6 * endpoint.name.utf8.count + answers
    }

    private func writeTree(
        _ exchange: Exchange, _ client: DownstreamConnection, _ endpoints: [Endpoint], _ strategy: StaticString,
        treesLost: UInt64, _ tree: inout TreeWriter
    ) {
        let identity = exchange.identity
        beginTree(exchange, identity, &tree)
        writeRoot(exchange, client, endpoints, treesLost: treesLost, &tree)
        let clock = SpanClock(baseNs: exchange.startedNs)
        for index in 0..<exchange.attemptCount {
            let isLast = index == exchange.attemptCount - 1
            let attempt = isLast ? exchange.attempt : exchange.pastAttempts[index]
            writeAttempt(exchange, attempt, number: index, endpoints, strategy, clock, &tree)
        }
        writeStreaming(exchange, clock, &tree)
    }

    private func beginTree(_ exchange: Exchange, _ identity: TraceIdentity, _ tree: inout TreeWriter) {
        let traceState = exchange.traceState
        tree.begin(
            traceID: (high: identity.traceIDHigh, low: identity.traceIDLow), parentSpanID: identity.parentSpanID,
            traceFlags: identity.flags, baseUnixNs: exchange.startedUnixNs, traceState: traceState.span)
    }

    private func writeRoot(
        _ exchange: Exchange, _ client: DownstreamConnection, _ endpoints: [Endpoint], treesLost: UInt64,
        _ tree: inout TreeWriter
    ) {
        let isError = exchange.statusSent >= 500 || exchange.statusSent == 0 || exchange.hadBodyError
        tree.beginSpan(
            .proxyRequest, kind: .server, id: exchange.identity.rootSpanID, parent: nil, startOffsetNs: 0,
            endOffsetNs: exchange.endedNs &- exchange.startedNs, status: isError ? .error : .unset)
        writeRequestFacts(exchange, client, &tree)
        if exchange.statusSent > 0 { tree.attribute(.httpStatusCode, exchange.statusSent) }
        let backend = exchange.lastEndpoint
        if backend >= 0 {
            tree.attribute(.backendID, backend)
            tree.attribute(.backendHost, endpoints[backend].name)
        }
        tree.attribute(.netPeerIP, text: client.peer.ip)
        tree.attribute(.netPeerPort, Int(client.peer.port))
        tree.attribute(.httpResponseContentLength, exchange.responseBodyBytes)
        tree.attribute(.lbWorker, worker)
        tree.attribute(.lbGeneration, Int(generation))
        if exchange.attemptCount > 1 { tree.attribute(.lbRetryCount, exchange.attemptCount - 1) }
        if treesLost > 0 { tree.attribute(.lbTreesLost, Int(treesLost)) }
        writeError(exchange.error, &tree)
        writeRetryEvents(exchange, &tree)
        if ranAtDrain(exchange) {
            tree.beginEvent(.drainStarted, offsetNs: drainStartedNs &- exchange.startedNs)
        }
    }

    /// Whether the request ran when the drain began.
    func ranAtDrain(_ exchange: Exchange) -> Bool {
        exchange.startedNs <= drainStartedNs && drainStartedNs <= exchange.endedNs
    }

    /// What the head said.
    private func writeRequestFacts(_ exchange: Exchange, _ client: DownstreamConnection, _ tree: inout TreeWriter) {
        guard let retained = exchange.retained else { return }
        let bytes = retained.readable
        let head = exchange.head
        if !head.methodText.isEmpty { tree.attribute(.httpMethod, text: bytes.extracting(head.methodText)) }
        writeURL(&tree)
        guard head.headBytes > 0 else { return }
        tree.attribute(.httpFlavor, Self.flavor(exchange, client).text)
        if !head.authority.isEmpty { tree.attribute(.httpHost, text: bytes.extracting(head.authority)) }
        if !exchange.userAgent.isEmpty { tree.attribute(.httpUserAgent, text: bytes.extracting(exchange.userAgent)) }
        if let count = exchange.requestBodyBytes { tree.attribute(.httpRequestContentLength, count) }
    }

    /// The HTTP that the client speaks.
    static func flavor(_ exchange: Exchange, _ client: DownstreamConnection) -> HTTPFlavor {
        if client.stream != nil { return .http2 }
        return exchange.head.minorVersion == 0 ? .http10 : .http11
    }

    func writeURL(_ tree: inout TreeWriter) {
        let url = self.url
        if !url.isEmpty { tree.attribute(.httpURL, text: url.readable) }
    }

    func writeError(_ error: ErrorType?, _ tree: inout TreeWriter) {
        guard let error else { return }
        tree.attribute(.errorType, error.text)
        tree.attribute(.statusMessage, error.sentence)
    }

    private func writeRetryEvents(_ exchange: Exchange, _ tree: inout TreeWriter) {
        for (index, attempt) in exchange.pastAttempts.enumerated() {
            writeRetryEvent(attempt, next: index + 1, exchange, &tree)
        }
        guard let denied = exchange.retryDenied else { return }
        tree.beginEvent(.retryDenied, offsetNs: denied.atNs &- exchange.startedNs)
        tree.attribute(.retryReason, denied.reason.text)
        tree.attribute(.retryVerdict, denied.verdict.text)
    }

    private func writeRetryEvent(_ attempt: AttemptRecord, next: Int, _ exchange: Exchange, _ tree: inout TreeWriter) {
        guard let reason = attempt.retry else { return }
        tree.beginEvent(.retryTriggered, offsetNs: attempt.failedAtNs &- exchange.startedNs)
        tree.attribute(.retryReason, reason.text)
        tree.attribute(.retryAttempt, next)
    }

    private func writeAttempt(
        _ exchange: Exchange, _ attempt: AttemptRecord, number: Int, _ endpoints: [Endpoint],
        _ strategy: StaticString, _ clock: SpanClock, _ tree: inout TreeWriter
    ) {
        let endpoint = attempt.endpoint >= 0 ? endpoints[attempt.endpoint] : nil
        tree.beginSpan(
            .backendSelection, kind: .internal, id: newSpanID(), parent: 0,
            startOffsetNs: clock.offsetNs(attempt.selectionStartNs),
            endOffsetNs: clock.offsetNs(attempt.selectionEndNs),
            status: endpoint == nil ? .error : .unset)
        tree.attribute(.lbStrategy, strategy)
        tree.attribute(.lbBackendCount, endpoints.count)
        tree.attribute(.lbHealthyCount, attempt.healthyCount)
        guard let endpoint else { return writeError(attempt.error, &tree) }
        tree.attribute(.lbSelectedBackend, endpoint.name)
        if attempt.http2.isUsed {
            let isLast = number == exchange.attemptCount - 1
            return writeHTTP2Attempt(
                exchange, attempt, number: number, isLast: isLast, endpoint, clock, &tree)
        }
        writeConnection(exchange, attempt, number: number, endpoint, clock, &tree)
        if attempt.requestStartNs > 0 { writeBackendRequest(exchange, attempt, number: number, endpoint, clock, &tree) }
    }

    private func writeConnection(
        _ exchange: Exchange, _ attempt: AttemptRecord, number: Int, _ endpoint: Endpoint, _ clock: SpanClock,
        _ tree: inout TreeWriter
    ) {
        let start = clock.offsetNs(attempt.selectionEndNs)
        let failed = attempt.failedToConnect
        let connection = tree.beginSpan(
            .backendConnection, kind: .internal, id: newSpanID(), parent: 0, startOffsetNs: start,
            endOffsetNs: clock.offsetNs(attempt.connectionEndNs, notBefore: attempt.selectionEndNs),
            status: failed ? .error : .unset)
        tree.attribute(.backendHost, endpoint.name)
        tree.attribute(.connectionFromPool, attempt.isFromPool)
        if attempt.connection > 0 { writeConnectionID(attempt.connection, &tree) }
        if failed {
            writeError(attempt.error, &tree)
            writeAttemptEvents(exchange, attempt, number: number, endpoint, &tree)
        }
        // There is no span of the attempt itself that could have it.
        if attempt.requestStartNs == 0 { writeLink(attempt, &tree) }
        writeAcquire(attempt, parent: connection, clock, &tree)
        let facts = exchange.handshakes.first { $0.attempt == number }
        writeMaking(attempt, facts, endpoint, parent: connection, clock, &tree)
    }

    /// What a new connection took, before anything was sent over it.
    func writeMaking(
        _ attempt: AttemptRecord, _ facts: HandshakeFacts?, _ endpoint: Endpoint, parent: Int, _ clock: SpanClock,
        _ tree: inout TreeWriter
    ) {
        if attempt.connectStartNs > 0 { writeConnect(attempt, endpoint, parent: parent, clock, &tree) }
        if attempt.handshakeStartNs > 0 {
            writeHandshake(attempt, facts, endpoint, parent: parent, clock, &tree)
        }
    }

    func writeAcquire(_ attempt: AttemptRecord, parent: Int, _ clock: SpanClock, _ tree: inout TreeWriter) {
        tree.beginSpan(
            .poolAcquire, kind: .internal, id: newSpanID(), parent: parent,
            startOffsetNs: clock.offsetNs(attempt.selectionEndNs),
            endOffsetNs: clock.offsetNs(attempt.acquireEndNs, notBefore: attempt.selectionEndNs),
            status: attempt.failedInLine ? .error : .unset)
        if attempt.poolOutcome != .none { tree.attribute(.poolOutcome, attempt.poolOutcome.text) }
        tree.attribute(.poolIdleCount, attempt.idleCount)
        tree.attribute(.poolActiveCount, attempt.activeCount)
    }

    func writeConnect(
        _ attempt: AttemptRecord, _ endpoint: Endpoint, parent: Int, _ clock: SpanClock, _ tree: inout TreeWriter
    ) {
        let start = clock.offsetNs(attempt.connectStartNs)
        if let hostname = endpoint.hostname {
            // Resolved when the process started: the answer was at hand.
            tree.beginSpan(
                .dnsResolution, kind: .internal, id: newSpanID(), parent: parent, startOffsetNs: start,
                endOffsetNs: start)
            tree.attribute(.dnsHostname, hostname)
            tree.attribute(.dnsAnswers, endpoint.addressTexts)
            tree.attribute(.dnsCached, true)
        }
        let failed =
            attempt.failedToConnect && attempt.handshakeStartNs == 0 && attempt.http2.handshakeStartNs == 0
        tree.beginSpan(
            .tcpConnect, kind: .internal, id: newSpanID(), parent: parent, startOffsetNs: start,
            endOffsetNs: clock.offsetNs(attempt.connectEndNs, notBefore: attempt.connectStartNs),
            status: failed ? .error : .unset)
        tree.attribute(.netPeerName, endpoint.host)
        if let port = endpoint.port {
            tree.attribute(.netPeerPort, port)
            tree.attribute(.netPeerIP, endpoint.addressTexts[attempt.addressIndex])
        }
        if failed { writeError(attempt.error, &tree) }
    }

    private func writeHandshake(
        _ attempt: AttemptRecord, _ facts: HandshakeFacts?, _ endpoint: Endpoint, parent: Int, _ clock: SpanClock,
        _ tree: inout TreeWriter
    ) {
        let failed = attempt.failedToConnect && attempt.http2.handshakeStartNs == 0
        tree.beginSpan(
            .tlsHandshake, kind: .internal, id: newSpanID(), parent: parent,
            startOffsetNs: clock.offsetNs(attempt.handshakeStartNs),
            endOffsetNs: clock.offsetNs(attempt.handshakeEndNs, notBefore: attempt.handshakeStartNs),
            status: failed ? .error : .unset)
        if let name = endpoint.hostname { tree.attribute(.tlsServerName, name) }
        if let facts, facts.failure == nil {
            tree.attribute(.tlsCipher, facts.cipher)
            if !facts.applicationProtocol.isEmpty { tree.attribute(.tlsALPN, facts.applicationProtocol) }
            tree.attribute(.tlsVersion, facts.version)
            tree.attribute(.tlsResumed, facts.isResumed)
        }
        guard failed else { return }
        guard let reason = facts?.failure else { return writeError(attempt.error, &tree) }
        tree.attribute(.errorType, ErrorType.tlsFailure.text)
        tree.attribute(.statusMessage, reason)
    }

    private func writeBackendRequest(
        _ exchange: Exchange, _ attempt: AttemptRecord, number: Int, _ endpoint: Endpoint, _ clock: SpanClock,
        _ tree: inout TreeWriter
    ) {
        // A client that left is not an error of the backend.
        let isError = attempt.status >= 400 || (attempt.status == 0 && attempt.error != nil)
        tree.beginSpan(
            .backendRequest, kind: .client, id: attempt.spanID, parent: 0,
            startOffsetNs: clock.offsetNs(attempt.requestStartNs),
            endOffsetNs: clock.offsetNs(attempt.requestEndNs, notBefore: attempt.requestStartNs),
            status: isError ? .error : .unset)
        if let retained = exchange.retained {
            tree.attribute(.httpMethod, text: retained.readable.extracting(exchange.head.methodText))
        }
        writeURL(&tree)
        tree.attribute(.httpFlavor, "1.1")
        if attempt.status > 0 { tree.attribute(.httpStatusCode, attempt.status) }
        if number > 0 { tree.attribute(.httpResendCount, number) }
        if attempt.status == 0 { writeError(attempt.error, &tree) }
        writeAttemptEvents(exchange, attempt, number: number, endpoint, &tree)
        writeLink(attempt, &tree)
    }

    func writeAttemptEvents(
        _ exchange: Exchange, _ attempt: AttemptRecord, number: Int, _ endpoint: Endpoint, _ tree: inout TreeWriter
    ) {
        if attempt.markedUnhealthyAfter > 0 {
            tree.beginEvent(.backendMarkedUnhealthy, offsetNs: attempt.failedAtNs &- exchange.startedNs)
            tree.attribute(.backendHost, endpoint.name)
            tree.attribute(.failures, attempt.markedUnhealthyAfter)
        }
        writeRetryEvent(attempt, next: number + 1, exchange, &tree)
    }

    private func writeStreaming(_ exchange: Exchange, _ clock: SpanClock, _ tree: inout TreeWriter) {
        guard exchange.attempt.status > 0, !exchange.attempt.http2.isUsed else { return }
        tree.beginSpan(
            .responseStreaming, kind: .internal, id: newSpanID(), parent: 0,
            startOffsetNs: clock.offsetNs(exchange.streamingStartNs), endOffsetNs: clock.offsetNs(exchange.endedNs),
            status: exchange.hadBodyError ? .error : .unset)
        tree.attribute(.httpBodyType, exchange.response.framing.traceName)
        if case .length(let count) = exchange.response.framing { tree.attribute(.httpBodyExpectedLength, count) }
        tree.attribute(.httpBodyBytesTransferred, exchange.responseRelay.bodyBytes)
        tree.attribute(.httpBodyHadError, exchange.hadBodyError)
        if exchange.hadBodyError { writeError(exchange.error, &tree) }
    }

    func writeConnectionID(_ number: UInt64, _ tree: inout TreeWriter) {
        let name = ConnectionName(worker: UInt32(truncatingIfNeeded: worker), number: number)
        tree.attribute(.connectionID, text: name.bytes)
    }

    /// The URL as the client asked for it, secrets redacted, into `url`.
    private func composeURL(_ exchange: Exchange, isSecure: Bool) {
        url.reset()
        guard let retained = exchange.retained, !exchange.head.target.isEmpty else { return }
        RequestURL.write(retained.readable, exchange.head, isSecure: isSecure, to: url)
    }
}

/// Turns monotonic times into offsets from a request's start.
struct SpanClock {
    let baseNs: UInt64

    func offsetNs(_ timeNs: UInt64) -> UInt64 { timeNs > baseNs ? timeNs - baseNs : 0 }

    /// A time that may never have been set: then the span ends where it began.
    func offsetNs(_ timeNs: UInt64, notBefore startNs: UInt64) -> UInt64 { offsetNs(max(timeNs, startNs)) }
}

extension BodyFraming {
    /// As `http.body.type` says it.
    var traceName: StaticString {
        switch self {
        case .none: "none"
        case .length: "content_length"
        case .chunked: "chunked"
        case .untilClose: "until_close"
        }
    }
}

extension AttemptRecord {
    /// The attempt ended before its request could be sent, and not because the client left.
    var failedToConnect: Bool { requestStartNs == 0 && error != nil }

    /// The attempt ended while it waited for a connection.
    var failedInLine: Bool { error == .poolQueueFull || error == .poolQueueTimeout }

    /// Whether this attempt's connection existed before it.
    var isFromPool: Bool { connection > 0 && connectStartNs == 0 }
}
