import ShmRing

/// After 101 the two connections are one pipe (RFC 9110 §7.8). An end on one side becomes an end on the
/// other; the tunnel is over when both have ended, or when nothing has moved for the idle timeout.
extension Proxy {
    func startTunnel(
        _ exchange: Exchange, _ head: ResponseHead, _ connection: UpstreamConnection, _ input: ByteBuffer
    ) {
        guard let client = exchange.downstream else { return }
        guard exchange.head.wantsUpgrade else {
            return attemptFailed(exchange, .upstreamProtocolError, connectionEnded: false)
        }
        responseArrived(exchange, connection, status: 101)
        exchange.response = head
        exchange.phase = .tunnel
        exchange.statusSent = 101
        exchange.mustClose = true
        let output = client.outputBuffer(room: HeadWriter.responseBytesMax(head), &buffers)
        HeadWriter.writeResponse(
            input.readable, head, table, HeadWriter.ResponseAdditions(isUpgrade: true), to: output)
        input.consume(head.headBytes)
        connection.releaseEmptyInput(&buffers)
        exchange.requestRelay = BodyRelay(.untilClose, writesChunks: false)
        exchange.responseRelay = BodyRelay(.untilClose, writesChunks: false)
        upstreamDeadlines.disarm(connection.slot)
        pumpTunnel(exchange)
    }

    func pumpTunnel(_ exchange: Exchange) {
        guard let client = exchange.downstream, let connection = exchange.upstream else { return }
        let toClient = exchange.responseRelay.pump(from: connection, to: client, &buffers)
        if Self.endsTunnel(toClient) { return finishTunnel(exchange, error: .upstreamReset) }
        let toBackend = exchange.requestRelay.pump(from: client, to: connection, &buffers)
        if Self.endsTunnel(toBackend) { return finishTunnel(exchange, error: .clientClosed) }
        if toClient == .finished, toBackend == .finished { return finishTunnel(exchange, error: nil) }
        if toClient == .finished { Socket.finishSending(client.descriptor) }
        if toBackend == .finished { Socket.finishSending(connection.descriptor) }
        downstreamDeadlines.arm(client.slot, .tunnelIdle, nowNs: nowNs)
        if toClient == .yielded || toBackend == .yielded {
            deferred.append(.continueUpstream(slot: connection.slot, generation: connection.generation))
        }
    }

    /// Whether a direction broke, as opposed to having ended.
    private static func endsTunnel(_ outcome: BodyRelay.Outcome) -> Bool {
        switch outcome {
        case .finished, .needsInput, .sinkBlocked, .yielded: false
        case .sourceEnded, .sourceFailed, .sinkFailed, .malformed, .tooLarge: true
        }
    }

    /// Ends the tunnel and both connections.
    func finishTunnel(_ exchange: Exchange, error: ErrorType?) {
        exchange.error = error
        abort(exchange)
    }
}
