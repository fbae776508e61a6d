import Logging
import ShmRing

/// An attempt failed, or somebody left: another attempt, an answer, or an end.
extension Proxy {
    /// The connection could not be made.
    func connectFailed(_ exchange: Exchange, _ error: ErrorType) {
        guard exchange.attempt.endpoint >= 0 else { preconditionFailure("a connect to no backend") }
        let endpoint = endpoints[exchange.attempt.endpoint]
        let now = stampNs()
        exchange.attempt.connectingEnded(atNs: now)
        if error.countsAgainstBackend { endpoint.addressFailed(exchange.attempt.addressIndex) }
        exchange.connectFailed(endpoint: endpoint.index)
        attemptFailed(exchange, error, connectionEnded: true, isConnectFailure: true, atNs: now)
    }

    /// The attempt is over without a response that could be passed on.
    /// - Parameter atNs: When it ended, if the caller has noted that already.
    func attemptFailed(
        _ exchange: Exchange, _ symptom: ErrorType, connectionEnded: Bool, isConnectFailure: Bool = false,
        unprocessed: RetryPolicy.Reason? = nil, atNs: UInt64? = nil
    ) {
        let error = cause(exchange, of: symptom)
        closes(exchange.upstream, because: error)
        if exchange.phase == .streaming { return failedInMidResponse(exchange, error) }
        let now = atNs ?? stampNs()
        exchange.attempt.error = error
        exchange.attempt.failedAtNs = now
        if exchange.attempt.requestStartNs > 0 { exchange.attempt.requestEndNs = now }
        let facts = facts(exchange, connectionEnded, isConnectFailure, unprocessed)
        let isBlamed = isLossBlamed(exchange)
        dropUpstream(exchange)
        if facts.isStaleConnection || facts.isRefusal || isBlamed {
            abandonTrial(exchange)
        } else {
            blame(exchange, error)
        }
        switch retryPolicy.verdict(facts) {
        case .retry(let reason):
            guard retryBudget.spend() else {
                exchange.retryDenied = (reason, .budgetExhausted, now)
                return answer(exchange, error)
            }
            guard hasCandidate(exchange) else {
                exchange.retryDenied = (reason, .attemptsExhausted, now)
                return answer(exchange, error)
            }
            retry(exchange, reason)
        case .denied(let reason, let denial):
            exchange.retryDenied = (reason, denial, now)
            answer(exchange, error)
        case .final: answer(exchange, error)
        }
    }

    /// A stream's connection, or its frames, tell more of a failure than its bytes.
    func cause(_ exchange: Exchange, of symptom: ErrorType) -> ErrorType {
        guard symptom == .upstreamReset || symptom == .upstreamClosed, let stream = exchange.upstream?.stream,
            stream.isClosed
        else { return symptom }
        return stream.failure
    }

    /// A connection that is lost is one failure of its backend, however many streams were on it.
    private func isLossBlamed(_ exchange: Exchange) -> Bool {
        guard let connection = exchange.upstream, let carrier = connection.carrier,
            connection.stream?.hasLostConnection ?? false
        else { return false }
        defer { carrier.isLossBlamed = true }
        return carrier.isLossBlamed
    }

    private func facts(
        _ exchange: Exchange, _ connectionEnded: Bool, _ isConnectFailure: Bool, _ unprocessed: RetryPolicy.Reason?
    ) -> RetryPolicy.Attempt {
        var facts = RetryPolicy.Attempt(
            method: exchange.head.method, number: exchange.attemptCount, isConnectFailure: isConnectFailure,
            wasReused: (exchange.upstream?.requestCount ?? 0) > 0, connectionEnded: connectionEnded,
            bytesSent: exchange.requestRelay.sinkBytesTaken,
            isBodyReplayable: exchange.wholeBodyBytes >= 0 || exchange.requestRelay.isSourceKept,
            responseStarted: exchange.interimCount > 0 || exchange.upstream?.hasInput ?? false,
            unprocessed: unprocessed)
        guard let stream = exchange.upstream?.stream, let carrier = exchange.upstream?.carrier else { return facts }
        facts.wasReused = carrier.requestCount > 0 || stream.isAfterGoaway
        facts.connectionEnded = stream.hasLostConnection
        facts.responseStarted = facts.responseStarted || stream.hasFinalHead
        facts.unprocessed = unprocessedReason(stream, carrier.endpoint)
        if facts.unprocessed == .refusedStream { exchange.refusingConnection = (carrier.slot, carrier.generation) }
        return facts
    }

    /// HTTP/1.1 may be asked for where it may not be spoken: then there is no other way to go.
    private func unprocessedReason(_ stream: HTTP2Stream, _ endpoint: Endpoint) -> RetryPolicy.Reason? {
        let reason = stream.unprocessed
        return reason == .http11Required && !maySpeakHTTP1(to: endpoint) ? nil : reason
    }

    private func failedInMidResponse(_ exchange: Exchange, _ error: ErrorType) {
        exchange.hadBodyError = true
        exchange.attempt.error = error
        dropUpstream(exchange)
        breakOff(exchange, error)
    }

    private func retry(_ exchange: Exchange, _ reason: RetryPolicy.Reason) {
        exchange.attempt.retry = reason
        exchange.keepAttempt()
        if let client = exchange.downstream { exchange.requestRelay.giveBack(to: client, buffers) }
        restartRequestRelay(exchange)
        exchange.isRequestAbandoned = false
        exchange.isRequestBlocked = false
        // Asked for HTTP/1.1, this request goes to the same backend again, and needs no fresh connection for that. After
        // a connection that had gone stale, the others in the pool may be just as stale.
        let endpoint = reason == .http11Required ? endpoints[exchange.attempt.endpoint] : nil
        dispatch(exchange, allowsReuse: reason == .connectFailed || endpoint != nil, to: endpoint)
    }

    /// Counts the failure against the backend, and says so when that takes it out.
    private func blame(_ exchange: Exchange, _ error: ErrorType) {
        guard error.countsAgainstBackend, exchange.attempt.endpoint >= 0 else { return abandonTrial(exchange) }
        let endpoint = endpoints[exchange.attempt.endpoint]
        // A backend that speaks HTTP/2 need not speak HTTP/1.1 because a client wants an upgrade.
        if error == .tlsFailure, exchange.attempt.mustBeHTTP1, endpoint.isHTTP2 { return abandonTrial(exchange) }
        let wasTrial = exchange.attempt.isTrial
        let wentOut = endpoint.updateHealth { $0.requestFailed(nowNs: nowNs, wasTrial: wasTrial) }
        exchange.attempt.isTrial = false
        guard wentOut else { return }
        exchange.attempt.markedUnhealthyAfter = endpoint.health.failures
        logger.warning(
            "backend is taken out",
            metadata: [
                "backend": "\(endpoint.name)", "failures": "\(endpoint.health.failures)", "reason": "\(error.text)",
            ])
    }

    /// The attempt says nothing about its backend; if it was the trial, another one may be made.
    func abandonTrial(_ exchange: Exchange) {
        guard exchange.attempt.isTrial, exchange.attempt.endpoint >= 0 else { return }
        exchange.attempt.isTrial = false
        endpoints[exchange.attempt.endpoint].updateHealth { $0.trialAbandoned(nowNs: nowNs) }
    }

    /// The client reset its connection or ended it before its request was whole.
    func clientGone(_ exchange: Exchange) {
        leaveUpstream(exchange)
        exchange.hadBodyError = exchange.phase == .streaming
        // An answer of our own keeps the reason it was given for.
        if exchange.phase != .answering {
            exchange.error = exchange.downstream?.stream?.isPeersFault ?? false ? .protocolError : .clientClosed
        }
        abort(exchange)
    }

    /// The client neither reads nor sends.
    func clientStalled(_ exchange: Exchange) {
        leaveUpstream(exchange)
        guard exchange.statusSent == 0 else {
            exchange.hadBodyError = exchange.phase == .streaming
            return breakOff(exchange, .clientTimeout)
        }
        answer(exchange, .clientTimeout)
    }

    /// Leaves the line for a connection.
    func leaveLine(_ exchange: Exchange, _ error: ErrorType) {
        leaveUpstream(exchange)
        exchange.attempt.error = error
        answer(exchange, error)
    }

    /// Ends what runs on the upstream side for a reason that is not the backend's.
    func leaveUpstream(_ exchange: Exchange) {
        let now = stampNs()
        if exchange.attempt.requestStartNs > 0, exchange.attempt.requestEndNs == 0 {
            exchange.attempt.requestEndNs = now
        }
        if exchange.phase == .connecting {
            exchange.attempt.connectingEnded(atNs: now)
        }
        if exchange.phase == .waitingForConnection, exchange.attempt.endpoint >= 0, let client = exchange.downstream {
            let waiter = PoolState.Waiter(slot: client.slot, generation: client.generation)
            endpoints[exchange.attempt.endpoint].pool.waiterLeft(waiter)
            endpoints[exchange.attempt.endpoint].http2Pool.waiterLeft(waiter)
            exchange.attempt.acquireEndNs = now
            exchange.attempt.connectionEndNs = now
        }
        abandonTrial(exchange)
        dropUpstream(exchange)
    }

    /// Ends a response whose body cannot be completed, so that the client sees the truncation.
    func breakOff(_ exchange: Exchange, _ error: ErrorType) {
        exchange.error = error
        // A body that ends with the connection looks complete after FIN, so it must be a reset.
        if let client = exchange.downstream,
            exchange.responseRelay.framing == .untilClose
                || exchange.response.framing == .chunked && exchange.head.minorVersion == 0
        {
            client.resetOnClose()
        }
        abort(exchange)
    }

    /// Ends the exchange and its client's connection at once.
    func abort(_ exchange: Exchange) {
        guard let client = exchange.downstream else { return }
        dropUpstream(exchange)
        if let stream = client.stream { exchange.discount(unsent: stream.unsentBytes) }
        closeExchange(exchange)
        closeDownstream(client)
    }

    /// What the trace tells of a stream that ends before its response has.
    private func noteEnd(of stream: HTTP2Stream, _ exchange: Exchange) {
        exchange.attempt.http2.bodyBytes = stream.bodyBytesTaken
        guard stream.isUnfinished, !stream.lacksOnlyEnd else { return }
        exchange.attempt.http2.noteReset(code: HTTP2ErrorCode.cancel.rawValue, isByPeer: false, atNs: nowNs)
    }

    /// Takes the connection from the request and closes it.
    func dropUpstream(_ exchange: Exchange) {
        guard let connection = exchange.upstream else { return }
        if let stream = connection.stream { noteEnd(of: stream, exchange) }
        makerLeaves(exchange, connection)
        exchange.upstream = nil
        connection.exchange = nil
        closeUpstream(connection)
    }
}
