import ShmRing

/// After 101 the two connections are one pipe (RFC 9110 §7.8). An end on one side becomes an end on the
/// other; the tunnel is over when both have ended, or when nothing has moved for the idle timeout.
///
/// What passes says itself whether it is whole (a WebSocket has a closing frame), so over TLS a FIN without
/// close_notify is an end too. Over HTTP/2 an end is END_STREAM, anything else RST_STREAM with CANCEL (RFC 8441 §5).
extension Proxy {
    func startTunnel(
        _ exchange: Exchange, _ head: ResponseHead, _ connection: UpstreamConnection, _ input: ByteBuffer
    ) {
        guard let client = exchange.downstream else { return }
        guard exchange.head.wantsUpgrade else {
            return attemptFailed(exchange, .upstreamProtocolError, connectionEnded: false)
        }
        // Over HTTP/2 it was 200 (RFC 8441 §5).
        responseArrived(exchange, connection, status: connection.stream == nil ? 101 : 200)
        connection.carrier?.requestCount += 1
        exchange.response = head
        exchange.phase = .tunnel
        exchange.statusSent = client.stream == nil ? 101 : 200
        tracer?.responseBegan(exchange, status: exchange.statusSent, .tunnel)
        exchange.mustClose = true
        let output = client.outputBuffer(room: HeadWriter.responseBytesMax(head), buffers)
        HeadWriter.writeResponse(
            input.readable, head, table, HeadWriter.ResponseAdditions(isUpgrade: true), to: output)
        input.consume(head.headBytes)
        connection.releaseEmptyInput(buffers)
        exchange.requestRelay.restart(.untilClose, writesChunks: false)
        exchange.responseRelay.restart(.untilClose, writesChunks: false)
        upstreamDeadlines.disarm(connection)
        client.transport?.acceptBareEnd()
        connection.transport?.acceptBareEnd()
        pumpTunnel(exchange)
    }

    func pumpTunnel(_ exchange: Exchange) {
        guard let client = exchange.downstream, let connection = exchange.upstream else { return }
        let toClient = exchange.responseRelay.pump(from: connection, to: client, buffers)
        if let error = Self.breach(toClient, source: .upstreamReset, sink: .clientClosed) {
            return finishTunnel(exchange, error: error)
        }
        let toBackend = exchange.requestRelay.pump(from: client, to: connection, buffers)
        if let error = Self.breach(toBackend, source: .clientClosed, sink: .upstreamReset) {
            return finishTunnel(exchange, error: error)
        }
        if toClient == .finished, !exchange.finishedClient {
            exchange.finishedClient = true
            client.finishSending()
        }
        if toBackend == .finished, !exchange.finishedBackend {
            exchange.finishedBackend = true
            connection.finishSending()
        }
        if toClient == .finished, toBackend == .finished { return finishTunnel(exchange, error: nil) }
        downstreamDeadlines.arm(client, .tunnelIdle, nowNs: nowNs)
        if toClient == .yielded || toBackend == .yielded { deferUpstream(connection) }
    }

    /// Whose fault it is that a direction broke; nil when it did not.
    private static func breach(_ outcome: BodyRelay.Outcome, source: ErrorType, sink: ErrorType) -> ErrorType? {
        switch outcome {
        case .finished, .needsInput, .sinkBlocked, .yielded: nil
        case .sourceEnded, .sourceFailed, .malformed, .tooLarge: source
        case .sinkFailed: sink
        }
    }

    /// Ends the tunnel and both connections.
    func finishTunnel(_ exchange: Exchange, error: ErrorType?) {
        exchange.error = error
        if error == nil, !exchange.finishedClient { exchange.downstream?.finishSending() }
        if error == .upstreamReset {
            closes(exchange.upstream, .reset, error)
        } else {
            closes(exchange.upstream, .tunnelEnded)
        }
        guard error == nil, let client = exchange.downstream else { return abort(exchange) }
        dropUpstream(exchange)
        closeExchange(exchange)
        closeInOrder(client)
    }
}
