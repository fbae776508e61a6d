import ShmRing

/// Attempts at backends that are spoken to in HTTP/2: one CLIENT span, with everything of the attempt below it.
///
///     backend_request_h2
///     ├─ pool_acquire
///     ├─ dns_resolution, tcp_connect, h2_handshake     only where this request made the connection
///     └─ response_streaming
extension Tracer {
    func writeHTTP2Attempt(
        _ exchange: Exchange, _ attempt: AttemptRecord, number: Int, isLast: Bool, _ endpoint: Endpoint,
        _ clock: SpanClock, _ tree: inout TreeWriter
    ) {
        let end = isLast && attempt.status > 0 ? exchange.endedNs : max(attempt.requestEndNs, attempt.connectionEndNs)
        let isError = attempt.status >= 400 || (attempt.status == 0 && attempt.error != nil)
        let span = tree.beginSpan(
            .backendRequestH2, kind: .client, id: attempt.spanID == 0 ? newSpanID() : attempt.spanID, parent: 0,
            startOffsetNs: clock.offsetNs(attempt.selectionEndNs),
            endOffsetNs: clock.offsetNs(max(end, attempt.failedAtNs), notBefore: attempt.selectionEndNs),
            status: isError ? .error : .unset)
        writeHTTP2Facts(exchange, attempt, number: number, isLast: isLast, &tree)
        writeHTTP2Events(exchange, attempt, number: number, &tree)
        writeAttemptEvents(exchange, attempt, number: number, endpoint, &tree)
        writeLink(attempt, &tree)
        writeAcquire(attempt, parent: span, clock, &tree)
        let facts = exchange.handshakes.first { $0.attempt == number }
        writeMaking(attempt, facts, endpoint, parent: span, clock, &tree)
        if attempt.http2.handshakeStartNs > 0 { writeHTTP2Handshake(attempt, parent: span, clock, &tree) }
        if isLast, attempt.status > 0 { writeHTTP2Streaming(exchange, attempt, parent: span, clock, &tree) }
    }

    private func writeHTTP2Facts(
        _ exchange: Exchange, _ attempt: AttemptRecord, number: Int, isLast: Bool, _ tree: inout TreeWriter
    ) {
        if let retained = exchange.retained {
            tree.attribute(.httpMethod, text: retained.readable.extracting(exchange.head.methodText))
        }
        writeURL(&tree)
        if attempt.status > 0 {
            tree.attribute(.httpStatusCode, attempt.status)
            tree.attribute(.httpResponseContentLength, attempt.http2.bodyBytes)
        }
        tree.attribute(.h2RetryCount, number)
        if attempt.http2.streamID > 0 {
            tree.attribute(.h2StreamID, Int(attempt.http2.streamID))
            tree.attribute(.h2StreamsActive, attempt.http2.streamsActive)
        }
        if attempt.connection > 0 { writeConnectionID(attempt.connection, &tree) }
        tree.attribute(.connectionFromPool, attempt.isFromPool)
        if attempt.status == 0 { writeError(attempt.error, &tree) }
    }

    /// In the order in which things happened: a GOAWAY comes before what it ends.
    private func writeHTTP2Events(
        _ exchange: Exchange, _ attempt: AttemptRecord, number: Int, _ tree: inout TreeWriter
    ) {
        for note in exchange.goaways where note.attempt == number + 1 {
            let last = note.goaway.lastStreamID
            tree.beginEvent(.goawayReceived, offsetNs: note.atNs &- exchange.startedNs)
            tree.attribute(.h2ErrorCode, HTTP2ErrorCode.name(note.goaway.errorCode))
            tree.attribute(.h2LastStreamID, Int(last))
            // Before SETTINGS there was no stream yet.
            if note.streamID > 0 { tree.attribute(.h2StreamID, Int(note.streamID)) }
            if !note.goaway.debugData.isEmpty { tree.attribute(.h2DebugData, text: note.goaway.debugData.span) }
            tree.attribute(.h2Processed, note.isUnprocessed ? "no" : "unknown")
        }
        guard attempt.http2.resetAtNs > 0 else { return }
        tree.beginEvent(.streamReset, offsetNs: attempt.http2.resetAtNs &- exchange.startedNs)
        tree.attribute(.h2ErrorCode, HTTP2ErrorCode.name(attempt.http2.resetCode))
        tree.attribute(.h2ResetBy, attempt.http2.isResetByPeer ? "peer" : "local")
    }

    func writeHTTP2Handshake(
        _ attempt: AttemptRecord, parent: Int, _ clock: SpanClock, _ tree: inout TreeWriter
    ) {
        let facts = attempt.http2
        let hasFailed = facts.handshakeEndNs == 0
        tree.beginSpan(
            .h2Handshake, kind: .internal, id: newSpanID(), parent: parent,
            startOffsetNs: clock.offsetNs(facts.handshakeStartNs),
            endOffsetNs: clock.offsetNs(
                hasFailed ? attempt.connectionEndNs : facts.handshakeEndNs, notBefore: facts.handshakeStartNs),
            status: hasFailed ? .error : .unset)
        guard !hasFailed else { return writeError(attempt.error, &tree) }
        writeSettings(facts.peerSettings, &tree)
    }

    func writeSettings(_ settings: HTTP2Session.PeerSettings, _ tree: inout TreeWriter) {
        // libnghttp2 reports the largest number where the server set no limit.
        if settings.streamsMax != .max { tree.attribute(.h2MaxConcurrentStreams, Int(settings.streamsMax)) }
        tree.attribute(.h2InitialWindowSize, Int(settings.windowBytes))
    }

    private func writeHTTP2Streaming(
        _ exchange: Exchange, _ attempt: AttemptRecord, parent: Int, _ clock: SpanClock, _ tree: inout TreeWriter
    ) {
        tree.beginSpan(
            .responseStreaming, kind: .internal, id: newSpanID(), parent: parent,
            startOffsetNs: clock.offsetNs(exchange.streamingStartNs), endOffsetNs: clock.offsetNs(exchange.endedNs),
            status: exchange.hadBodyError ? .error : .unset)
        tree.attribute(.httpBodyType, "h2_streamed")
        tree.attribute(.httpBodyLength, attempt.http2.bodyBytes)
        tree.attribute(.httpBodyBytesWritten, exchange.responseRelay.bodyBytes)
        tree.attribute(.httpBodyHadError, exchange.hadBodyError)
        if exchange.hadBodyError { writeError(exchange.error, &tree) }
    }
}
