import ShmRing

/// Bodies in both directions, with the deadlines that belong to each way of waiting.
extension Proxy {
    /// Moves the request on: its head if that still waits, then its body.
    func pumpRequest(_ exchange: Exchange) {
        guard let client = exchange.downstream, let connection = exchange.upstream, !exchange.isRequestAbandoned
        else { return }
        exchange.isRequestBlocked = false
        let before = exchange.requestRelay.progress
        let outcome = exchange.requestRelay.pump(from: client, to: connection, buffers)
        let moved = exchange.requestRelay.progress != before
        countBehind(client, client, outcome, ofRequest: true)
        switch outcome {
        case .finished, .needsInput:
            armDeadlines(exchange, client, connection, requestMoved: moved)
        case .sinkBlocked:
            exchange.isRequestBlocked = true
            armDeadlines(exchange, client, connection, requestMoved: moved)
        case .yielded:
            deferDownstream(client)
        case .sourceEnded, .sourceFailed:
            clientGone(exchange)
        case .sinkFailed:
            requestRefusedByBackend(exchange, connection)
        case .malformed:
            requestSpoilt(exchange, .protocolError)
        case .tooLarge:
            requestSpoilt(exchange, .bodyTooLarge)
        }
    }

    /// What was read and cannot go on counts for the client's connection.
    private func countBehind(
        _ source: Connection, _ client: DownstreamConnection, _ outcome: BodyRelay.Outcome, ofRequest: Bool
    ) {
        guard let transport = client.transport else { return }
        let capacity = outcome == .sinkBlocked ? source.input?.capacity ?? 0 : 0
        transport.holds(behind: capacity, ofRequest: ofRequest)
    }

    /// Trailers behind a body whose length is known pass beside the text, from one stream to another.
    /// - Returns: Whether the relay is to hand the end over; the sink then waits for it.
    static func handsOverEnd(of source: HTTP2Stream?, to sink: HTTP2Stream?, _ framing: BodyFraming) -> Bool {
        guard let source, let sink, case .length(let bytes) = framing, bytes > 0, source.mayHaveTrailers else {
            return false
        }
        sink.holdEnd()
        return true
    }

    /// The backend closed its reading side. It may have answered all the same: read before judging.
    private func requestRefusedByBackend(_ exchange: Exchange, _ connection: UpstreamConnection) {
        exchange.isRequestAbandoned = true
        connection.isReadable = true
        connection.peerFinished = true
        if let client = exchange.downstream { armDeadlines(exchange, client, connection) }
        serveUpstream(exchange, connection)
    }

    /// The body turned out to be wrong after (some of) the head went out.
    private func requestSpoilt(_ exchange: Exchange, _ error: ErrorType) {
        leaveUpstream(exchange)
        guard exchange.statusSent == 0 else {
            exchange.hadBodyError = exchange.phase == .streaming
            return breakOff(exchange, error)
        }
        answer(exchange, error)
    }

    /// Moves the response on.
    func pumpResponse(_ exchange: Exchange) {
        guard let client = exchange.downstream, let connection = exchange.upstream else { return }
        exchange.isResponseBlocked = false
        let before = exchange.responseRelay.progress
        let outcome = exchange.responseRelay.pump(from: connection, to: client, buffers)
        let moved = exchange.responseRelay.progress != before
        countBehind(connection, client, outcome, ofRequest: false)
        switch outcome {
        case .finished:
            finishResponse(exchange)
        case .needsInput:
            armDeadlines(exchange, client, connection, responseMoved: moved)
        case .sinkBlocked:
            exchange.isResponseBlocked = true
            armDeadlines(exchange, client, connection, responseMoved: moved)
        case .yielded:
            deferUpstream(connection)
        case .sourceEnded:
            responseCutShort(exchange, .upstreamClosed)
        case .sourceFailed:
            responseCutShort(exchange, .upstreamReset)
        case .sinkFailed:
            clientGone(exchange)
        case .malformed, .tooLarge:
            responseCutShort(exchange, .upstreamProtocolError)
        }
    }

    /// Sets the deadline of each side from what the exchange waits for now. A deadline that runs already
    /// goes on, unless what it watches has moved: neither side's progress keeps the other alive.
    func armDeadlines(
        _ exchange: Exchange, _ client: DownstreamConnection, _ connection: UpstreamConnection,
        requestMoved: Bool = false, responseMoved: Bool = false
    ) {
        let running = downstreamDeadlines.armed(client)
        if let wanted = clientDeadline(exchange) {
            let moved = wanted != .clientBody && responseMoved || wanted != .clientStall && requestMoved
            if moved || running != wanted { downstreamDeadlines.arm(client, wanted, nowNs: nowNs) }
        } else if running != .halfClose || exchange.statusSent > 0 {
            downstreamDeadlines.disarm(client)
        }
        guard let wanted = upstreamDeadline(exchange) else { return upstreamDeadlines.disarm(connection) }
        let moved = wanted == .stall && (responseMoved || requestMoved && exchange.isRequestBlocked)
        if moved || upstreamDeadlines.armed(connection) != wanted {
            upstreamDeadlines.arm(connection, wanted, nowNs: nowNs)
        }
    }

    /// What is expected of the client. Once a response has begun, both sides may rightly be silent between two
    /// messages: what they share then is the time of a tunnel.
    private func clientDeadline(_ exchange: Exchange) -> DownstreamDeadline? {
        if exchange.isResponseBlocked { return .clientStall }
        guard awaitsBody(exchange) else { return nil }
        return exchange.phase == .streaming ? .tunnelIdle : .clientBody
    }

    /// More of the request may come, and there is room for it.
    private func awaitsBody(_ exchange: Exchange) -> Bool {
        !exchange.isRequestRead && !exchange.isRequestBlocked && !exchange.isRequestAbandoned
            && !exchange.awaitsContinue
    }

    /// What is expected of the backend.
    private func upstreamDeadline(_ exchange: Exchange) -> UpstreamDeadline? {
        if exchange.phase == .streaming { return exchange.isResponseBlocked || awaitsBody(exchange) ? nil : .stall }
        if exchange.isRequestBlocked { return .stall }
        let owesHead = exchange.isRequestRead || exchange.isRequestAbandoned || exchange.awaitsContinue
        return owesHead ? .responseHead : nil
    }

    /// The client's socket has room again.
    func continueResponse(_ exchange: Exchange) {
        switch exchange.phase {
        case .answering: pumpAnswer(exchange)
        case .awaitingHead: flushInterim(exchange)
        case .waitingForConnection, .connecting, .streaming, .tunnel, .finished: pumpResponse(exchange)
        }
    }

    /// An interim response waits for room at the client.
    func flushInterim(_ exchange: Exchange) {
        guard let client = exchange.downstream, let connection = exchange.upstream else { return }
        exchange.isResponseBlocked = false
        switch client.flush(buffers) {
        case .bytes: break
        case .wouldBlock: exchange.isResponseBlocked = true
        case .failed: return clientGone(exchange)
        case .endOfStream: preconditionFailure("send(2) has no end of stream")
        }
        armDeadlines(exchange, client, connection)
    }

    /// The backend failed in the middle of the body: the client must see that something is missing.
    private func responseCutShort(_ exchange: Exchange, _ symptom: ErrorType) {
        let error = cause(exchange, of: symptom)
        closes(exchange.upstream, because: error)
        exchange.hadBodyError = true
        exchange.attempt.error = error
        dropUpstream(exchange)
        breakOff(exchange, error)
    }
}
