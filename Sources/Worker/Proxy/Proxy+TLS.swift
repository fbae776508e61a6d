import Logging
import ShmRing

/// Handshakes on both sides. Before one is over its connection carries nothing; after it the session is the
/// connection's transport, and nobody else knows.
extension Proxy {
    /// What clients of a listener are served with; nil for plain HTTP.
    func tlsServer(of listener: Int32) -> TLSServer? {
        guard let server = configuration.tlsServer, Socket.localPort(listener) == configuration.tlsPort else {
            return nil
        }
        return server
    }

    /// A client came in on a TLS port.
    func startHandshake(_ connection: DownstreamConnection, _ server: TLSServer) {
        connection.transport = server.session(descriptor: connection.descriptor)
        connection.isSecure = true
        connection.phase = .handshaking
        downstreamDeadlines.arm(connection, .handshake, nowNs: nowNs)
    }

    func continueHandshake(_ connection: DownstreamConnection) {
        guard let session = connection.transport as? TLSSession else { preconditionFailure("a handshake without TLS") }
        switch session.handshake() {
        case .wouldBlock: return
        case .failed(let reason):
            if session.isPlainHTTP { return refusePlainHTTP(connection) }
            logger.debug("a client's handshake failed", metadata: ["reason": "\(reason)"])
            closeDownstream(connection)
        case .done:
            connection.isReadable = connection.peerFinished || session.mayHaveBytes
            connection.phase = .reading
            guard !isDraining else { return retire(connection) }
            downstreamDeadlines.arm(connection, .keepAlive, nowNs: nowNs)
            readRequest(connection)
        }
    }

    /// Says in plain HTTP that this port wants TLS. What the client sent is used up by the attempt to read it as TLS.
    private func refusePlainHTTP(_ connection: DownstreamConnection) {
        connection.transport?.close(isReset: true)
        connection.transport = nil
        connection.isSecure = false
        connection.phase = .reading
        connection.headStartedNs = stampNs()
        refuse(connection, .plainHTTPOnTLSPort)
    }

    /// Whether what came on a plain port begins as TLS does: a handshake record whose length is possible, with a
    /// ClientHello in it (RFC 8446 §4, §5.1).
    private func isClientHello(_ bytes: Span<UInt8>) -> Bool {
        bytes.count >= 6 && bytes[0] == 0x16 && bytes[1] == 0x03 && bytes[2] <= 0x04 && bytes[3] <= 0x40
            && bytes[5] == 0x01
    }

    /// A head that is none may be TLS on the wrong port; its sender gets the answer of any other.
    func logClientHello(_ bytes: Span<UInt8>) {
        guard isClientHello(bytes), tlsOnPlainPort.allows(nowNs: nowNs) else { return }
        logger.warning("a client speaks TLS on a port for plain HTTP; its connection is closed")
    }

    // MARK: Backends

    /// The connection to a backend that wants TLS is there. The deadline of the connect goes on.
    func startHandshake(_ exchange: Exchange, _ connection: UpstreamConnection) {
        guard let client = configuration.tlsClient else { preconditionFailure("an https backend without settings") }
        exchange.attempt.handshakeStartNs = exchange.attempt.connectEndNs
        let endpoint = connection.endpoint
        let session = client.session(
            descriptor: connection.descriptor, name: endpoint.host, isAddress: endpoint.hostname == nil,
            memory: endpoint.sessionMemory)
        connection.mustBeHTTP1 = exchange.attempt.mustBeHTTP1 || endpoint.isPaused(nowNs: nowNs)
        if connection.mustBeHTTP1 { session.offerHTTP1Alone() }
        connection.transport = session
        connection.isHandshaking = true
        continueHandshake(connection)
        if connection.isHandshaking, !connection.isClosed, upstreamDeadlines.armed(connection) == nil {
            upstreamDeadlines.arm(connection, .connect, nowNs: nowNs)
        }
    }

    func continueHandshake(_ connection: UpstreamConnection) {
        guard let session = connection.transport as? TLSSession, let exchange = connection.exchange else {
            preconditionFailure("a backend's handshake for nobody")
        }
        switch session.handshake() {
        case .wouldBlock: return
        case .failed(let reason):
            exchange.keepHandshake(HandshakeFacts(session, attempt: exchange.attemptCount - 1, failure: reason))
            logFailure(connection.endpoint, reason)
            connectFailed(exchange, .tlsFailure)
        case .done:
            exchange.keepHandshake(HandshakeFacts(session, attempt: exchange.attemptCount - 1, failure: nil))
            connection.isHandshaking = false
            connection.isReadable = connection.peerFinished || session.mayHaveBytes
            connectionReady(exchange, connection)
        }
    }

    private func logFailure(_ endpoint: Endpoint, _ reason: String) {
        guard endpoint.tlsFailureLog.allows(nowNs: nowNs) else { return }
        logger.warning(
            "a backend's handshake failed", metadata: ["backend": "\(endpoint.name)", "reason": "\(reason)"])
    }
}

/// One line of a kind in ten seconds at most: the state lasts, the news does not.
struct LogPause {
    private static let pauseNs: UInt64 = 10_000_000_000
    private var nextNs: UInt64 = 0

    mutating func allows(nowNs: UInt64) -> Bool {
        guard nowNs >= nextNs else { return false }
        nextNs = nowNs + Self.pauseNs
        return true
    }
}
