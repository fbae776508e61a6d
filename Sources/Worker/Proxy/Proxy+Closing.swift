import Logging
import ShmRing

/// Connections end.
extension Proxy {
    /// Closes a client's connection that serves nothing.
    func closeDownstream(_ connection: DownstreamConnection) {
        precondition(connection.exchange == nil, "client \(connection.slot) is closed while it is served")
        precondition(connection.session == nil, "client \(connection.slot) is closed while it carries streams")
        if connection.stream != nil { streamCount -= 1 }
        downstreamDeadlines.remove(connection)
        connection.close(buffers)
        downstreams.remove(connection.slot)
        if connection.stream != nil { streamObjects.closed(connection) }
    }

    /// The last answer is out: say so with FIN, read on for a moment, then close.
    func startLinger(_ connection: DownstreamConnection) {
        if connection.stream != nil || connection.sawEnd && connection.transport == nil {
            return closeDownstream(connection)
        }
        connection.finishSending()
        beginLinger(connection)
        linger(connection)
    }

    private func beginLinger(_ connection: DownstreamConnection) {
        connection.phase = .lingering
        connection.lingeredBytes = 0
        downstreamDeadlines.arm(connection, .linger, nowNs: nowNs)
    }

    /// Closes a connection to which everything was said. Over TLS the last word is close_notify: where the socket is too
    /// full for it, it is waited for.
    func closeInOrder(_ connection: DownstreamConnection) {
        if connection.transport != nil { connection.finishSending() }
        connection.isEndHeldBack ? beginLinger(connection) : closeDownstream(connection)
    }

    /// Throws away what the client still sends, within bounds.
    func linger(_ connection: DownstreamConnection) {
        for _ in 0..<16 {
            if let waiting = connection.input { waiting.consume(waiting.readableBytes) }
            connection.releaseEmptyInput(buffers)
            switch connection.receive(buffers) {
            case .bytes(let count): connection.lingeredBytes += count
            case .wouldBlock: return
            case .endOfStream where connection.isEndHeldBack: return
            case .endOfStream, .failed: return closeDownstream(connection)
            }
            if connection.lingeredBytes > Self.lingerBytesMax { return closeDownstream(connection) }
        }
        deferDownstream(connection)
    }

    /// Puts a connection that is fit for another request back.
    func releaseUpstream(_ connection: UpstreamConnection) {
        switch connection.endpoint.pool.connectionReleased(connection.slot) {
        case .keepIdle:
            connection.isIdle = true
            upstreamDeadlines.arm(connection, .idle, nowNs: nowNs)
        case .close:
            closes(connection, .poolFull)
            discardUpstream(connection)
        case .hand(let waiter): hand(connection, to: waiter)
        }
    }

    private func hand(_ connection: UpstreamConnection, to waiter: PoolState.Waiter) {
        guard let exchange = waitingExchange(waiter, connection.endpoint) else { return releaseUpstream(connection) }
        if let client = exchange.downstream { downstreamDeadlines.disarm(client) }
        attach(exchange, connection, atNs: stampNs())
        sendRequest(exchange)
        if let client = downstreams.occupant(waiter.slot, generation: waiter.generation) {
            noticeHalfClose(client, exchange)
        }
    }

    /// Closes a connection and tells its pool.
    func closeUpstream(_ connection: UpstreamConnection) {
        if connection.isHTTP2 { return closeHTTP2(connection) }
        discardUpstream(connection)
        if let waiter = connection.endpoint.pool.connectionClosed(connection.isIdle ? connection.slot : nil) {
            deferred.append(.connectWaiter(waiter, connection.endpoint))
        }
    }

    /// Closes a connection that its pool has forgotten.
    func discardUpstream(_ connection: UpstreamConnection) {
        precondition(connection.exchange == nil, "upstream \(connection.slot) is closed while it serves")
        recordEnd(of: connection)
        upstreamDeadlines.remove(connection)
        connection.close(buffers)
        upstreams.remove(connection.slot)
        if connection.stream != nil { streamObjects.closed(connection) }
    }
}
