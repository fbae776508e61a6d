import ShmRing

/// What is noted of a request while it runs, so that the exporter can tell of it should this worker die: a few stores
/// each, into memory that outlives the process. Only requests that are traced are noted.
extension Tracer {
    /// The head is whole and the ids are drawn.
    func requestBegan(_ exchange: Exchange, _ bytes: Span<UInt8>) {
        guard let inflight, exchange.identity.isSampled else { return }
        if exchange.inflightEntry < 0 { exchange.inflightEntry = inflight.take() }
        let identity = exchange.identity
        inflight.begin(
            exchange.inflightEntry,
            InflightTable.Identity(
                traceIDHigh: identity.traceIDHigh, traceIDLow: identity.traceIDLow, spanID: identity.rootSpanID,
                parentSpanID: identity.parentSpanID, flags: identity.flags, startUnixNs: exchange.startedUnixNs,
                isSecure: exchange.downstream?.isSecure ?? false),
            method: bytes.extracting(exchange.head.methodText),
            authority: bytes.extracting(exchange.head.authority),
            path: bytes.extracting(RequestURL.path(bytes, exchange.head)))
    }

    /// In line for a connection, maybe after an attempt that failed.
    func waiting(_ exchange: Exchange) {
        inflight?.moved(exchange.inflightEntry, to: .waitingForConnection)
    }

    func connecting(_ exchange: Exchange, _ endpoint: Endpoint) {
        guard let inflight, exchange.identity.isSampled else { return }
        inflight.connecting(exchange.inflightEntry, backend: endpoint.index, endpoint.name)
    }

    /// The attempt's span id goes upstream.
    func attemptBegan(_ exchange: Exchange, _ endpoint: Endpoint) {
        guard let inflight, exchange.identity.isSampled else { return }
        inflight.attempt(
            exchange.inflightEntry, spanID: exchange.attempt.spanID,
            startNs: exchange.attempt.requestStartNs &- exchange.startedNs, backend: endpoint.index, endpoint.name,
            isHTTP2: exchange.attempt.http2.isUsed,
            connection: connectionIDs == nil ? 0 : exchange.attempt.connection)
    }

    func responseBegan(_ exchange: Exchange, status: Int, _ phase: InflightTable.Phase) {
        guard let inflight, exchange.identity.isSampled else { return }
        inflight.response(
            exchange.inflightEntry, status: status, startNs: exchange.streamingStartNs &- exchange.startedNs, phase)
    }

    func answerBegan(_ exchange: Exchange) {
        inflight?.moved(exchange.inflightEntry, to: .answering)
    }

    /// The tree is published, or there is none.
    func requestEnded(_ exchange: Exchange) {
        inflight?.end(exchange.inflightEntry)
    }

    /// The object will not be used again.
    func exchangeDropped(_ exchange: Exchange) {
        inflight?.giveBack(exchange.inflightEntry)
        exchange.inflightEntry = -1
    }
}
