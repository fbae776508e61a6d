import ShmRing

/// Bodies in both directions, with the deadlines that belong to each way of waiting.
extension Proxy {
    /// Moves the request on: its head if that still waits, then its body.
    func pumpRequest(_ exchange: Exchange) {
        guard let client = exchange.downstream, let connection = exchange.upstream, !exchange.isRequestAbandoned
        else { return }
        exchange.isRequestBlocked = false
        switch exchange.requestRelay.pump(from: client, to: connection, &buffers) {
        case .finished:
            requestSent(exchange, client, connection)
        case .needsInput:
            downstreamDeadlines.arm(client.slot, .clientBody, nowNs: nowNs)
            upstreamDeadlines.disarm(connection.slot)
        case .sinkBlocked:
            exchange.isRequestBlocked = true
            downstreamDeadlines.disarm(client.slot)
            upstreamDeadlines.arm(connection.slot, .stall, nowNs: nowNs)
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

    private func requestSent(_ exchange: Exchange, _ client: DownstreamConnection, _ connection: UpstreamConnection) {
        guard exchange.phase == .awaitingHead else { return }
        if exchange.wholeBodyBytes < 0 { downstreamDeadlines.disarm(client.slot) }
        upstreamDeadlines.arm(connection.slot, .responseHead, nowNs: nowNs)
    }

    /// The backend closed its reading side. It may have answered all the same: read before judging.
    private func requestRefusedByBackend(_ exchange: Exchange, _ connection: UpstreamConnection) {
        exchange.isRequestAbandoned = true
        connection.isReadable = true
        connection.peerFinished = true
        if let client = exchange.downstream { downstreamDeadlines.disarm(client.slot) }
        serveUpstream(exchange, connection)
    }

    /// The body turned out to be wrong after (some of) the head went out.
    private func requestSpoilt(_ exchange: Exchange, _ error: ErrorType) {
        exchange.attempt.requestEndNs = stampNs()
        dropUpstream(exchange)
        abandonTrial(exchange)
        guard exchange.statusSent == 0 else { return breakOff(exchange, error) }
        answer(exchange, error)
    }

    /// Moves the response on.
    func pumpResponse(_ exchange: Exchange) {
        guard let client = exchange.downstream, let connection = exchange.upstream else { return }
        exchange.isResponseBlocked = false
        switch exchange.responseRelay.pump(from: connection, to: client, &buffers) {
        case .finished:
            finishResponse(exchange)
        case .needsInput:
            upstreamDeadlines.arm(connection.slot, .stall, nowNs: nowNs)
            if exchange.isRequestRead { downstreamDeadlines.disarm(client.slot) }
        case .sinkBlocked:
            exchange.isResponseBlocked = true
            upstreamDeadlines.disarm(connection.slot)
            downstreamDeadlines.arm(client.slot, .clientStall, nowNs: nowNs)
        case .yielded:
            deferred.append(.continueUpstream(slot: connection.slot, generation: connection.generation))
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

    /// The client's socket has room again.
    func continueResponse(_ exchange: Exchange) {
        exchange.phase == .answering ? pumpAnswer(exchange) : pumpResponse(exchange)
    }

    /// The backend failed in the middle of the body: the client must see that something is missing.
    private func responseCutShort(_ exchange: Exchange, _ error: ErrorType) {
        exchange.hadBodyError = true
        exchange.attempt.error = error
        dropUpstream(exchange)
        breakOff(exchange, error)
    }
}
