import ShmRing

/// What the trace of a connection to a backend is told, and when it is written. Nothing here changes what becomes of
/// the connection.
extension Proxy {
    /// A connection is about to be made: it has a number from here on, whatever comes of it.
    func beginHistory(_ exchange: Exchange) -> ConnectionHistory? {
        let number = nextConnectionNumber
        nextConnectionNumber += 1
        exchange.attempt.connection = number
        guard let tracer, tracer.connectionIDs != nil else { return nil }
        let startedNs = exchange.attempt.connectStartNs
        let history = ConnectionHistory(
            number: number, startedNs: startedNs, startedUnixNs: unixNs(at: startedNs))
        history.isSeen(by: exchange.identity)
        return history
    }

    /// The connection failed before there was a socket to wait for.
    func recordFailure(
        _ history: ConnectionHistory?, _ exchange: Exchange, _ endpoint: Endpoint, _ error: ErrorType
    ) {
        guard let tracer, let history else { return }
        exchange.attempt.error = error
        exchange.attempt.connectingEnded(atNs: stampNs())
        history.made(by: exchange)
        history.closes(.connectFailed, error)
        tracer.record(history, endpoint, Tracer.ConnectionEnd(atNs: nowNs))
    }

    /// The connection will end, for that reason. A stream's end says nothing about its connection's.
    func closes(_ connection: UpstreamConnection?, _ reason: CloseReason, _ error: ErrorType? = nil) {
        guard let connection, connection.stream == nil else { return }
        connection.history?.closes(reason, error)
    }

    /// The attempt fails, and its connection with it.
    func closes(_ connection: UpstreamConnection?, because error: ErrorType) {
        guard let connection, connection.stream == nil, let history = connection.history else { return }
        let reason = CloseReason(error, of: connection)
        history.closes(reason, reason == .requestAbandoned ? nil : error)
    }

    /// A request leaves its connection. If it was making it, what that took is kept.
    func makerLeaves(_ exchange: Exchange, _ connection: UpstreamConnection) {
        guard connection.stream == nil, let history = connection.history else { return }
        if connection.isConnecting || connection.isHandshaking || connection.isMaking { history.made(by: exchange) }
        history.closes(.requestAbandoned)
    }

    /// A connection is not kept after the response on it.
    func notKept(_ connection: UpstreamConnection, _ exchange: Exchange) {
        let reason = reasonNotToKeep(connection, exchange)
        closes(connection, reason, reason == .protocolError ? .upstreamProtocolError : nil)
    }

    private func reasonNotToKeep(_ connection: UpstreamConnection, _ exchange: Exchange) -> CloseReason {
        if connection.hasInput { return .protocolError }
        if !exchange.response.isPersistent { return .connectionClose }
        if connection.peerFinished { return .peerClosed }
        if !exchange.isRequestRead || exchange.isRequestAbandoned || connection.hasOutput { return .requestAbandoned }
        return isDraining ? .drain : .protocolError
    }

    /// The backend ended an idle connection, or said something on it.
    func idleEnded(_ connection: UpstreamConnection, _ readiness: Readiness) {
        if readiness.hasError { return closes(connection, .reset, .upstreamReset) }
        if connection.peerFinished || connection.sawEnd { return closes(connection, .peerClosed) }
        closes(connection, .protocolError, .upstreamProtocolError)
    }

    func pingAnswered(_ connection: UpstreamConnection, _ session: HTTP2Session) {
        let now = stampNs()
        while connection.pingsSeen < session.pingAckCount {
            connection.pingsSeen += 1
            connection.history?.pingAnswered(atNs: now)
        }
    }

    /// A connection of streams ends. One that was given up before, with no stream left, ends in order.
    func carrierEnds(_ connection: UpstreamConnection, _ session: HTTP2Session, _ error: ErrorType) {
        let costs = !session.streams.isEmpty
        switch error {
        case .upstreamClosed: closes(connection, .peerClosed, costs ? error : nil)
        case .upstreamReset: closes(connection, .reset, error)
        case .upstreamTimeout: closes(connection, .pingTimeout, error)
        default:
            let isInOrder = !session.isDead && !costs && connection.history?.closeReason != nil
            closes(connection, .protocolError, isInOrder ? nil : error)
        }
    }

    /// Writes the trace of a connection that is about to close.
    func recordEnd(of connection: UpstreamConnection) {
        guard let tracer, connection.stream == nil, let history = connection.history else { return }
        connection.history = nil
        guard history.isWanted else { return }
        let answered = connection.isHTTP2 ? history.streamsAnswered : connection.requestCount
        var end = Tracer.ConnectionEnd(atNs: stampNs(), requestsAnswered: answered)
        if !connection.isConnecting, !connection.isHandshaking { end.isHTTP2 = connection.isHTTP2 }
        end.bytes = Socket.totals(connection.descriptor)
        tracer.record(history, connection.endpoint, end)
    }

    /// The worker ends: connections that are still open are told now.
    func recordOpenConnections() {
        guard tracer?.connectionIDs != nil else { return }
        for connection in upstreams.occupants {
            closes(connection, .shutdown)
            recordEnd(of: connection)
        }
    }
}
