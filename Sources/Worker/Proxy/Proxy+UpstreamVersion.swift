import Logging
import ShmRing

/// Which HTTP a backend is spoken to: what ALPN comes to, and what the backend asks for.
extension Proxy {
    /// ALPN has decided what is spoken. A connection that was made for the other version changes its pool, and those
    /// that come after it are taken for this one.
    func settleVersion(_ exchange: Exchange, _ connection: UpstreamConnection) {
        let endpoint = connection.endpoint
        let speaksHTTP2 = (connection.transport as? TLSSession)?.speaksHTTP2 ?? false
        if !connection.mustBeHTTP1 { endpoint.isHTTP2 = speaksHTTP2 }
        exchange.attempt.http2.isUsed = speaksHTTP2
        guard connection.isHTTP2 != speaksHTTP2 else { return }
        connection.isHTTP2 = speaksHTTP2
        exchange.attempt.http2.isPooled = speaksHTTP2
        if speaksHTTP2 {
            endpoint.http2Pool.makingAdopted()
            releasePlace(endpoint)
        } else {
            endpoint.pool.connectionAdopted()
            endpoint.http2Pool.failed()
            for waiter in endpoint.http2Pool.dismissLine() { deferred.append(.reacquire(waiter, endpoint)) }
        }
    }

    /// The line that a request stood in is dissolved.
    func reacquire(_ waiter: PoolState.Waiter, _ endpoint: Endpoint) {
        guard let exchange = leaveLine(waiter, endpoint) else { return }
        exchange.attempt.http2 = HTTP2Attempt()
        acquireConnection(exchange, endpoint, allowsReuse: true)
        lookAtClient(waiter, exchange)
    }

    /// Whether the settings leave that way.
    func maySpeakHTTP1(to endpoint: Endpoint) -> Bool {
        !endpoint.isSecure || configuration.tlsClient?.offersHTTP1 ?? true
    }

    /// The backend refuses HTTP/2 (RFC 9113 §7): for a while nothing but HTTP/1.1 is spoken to it, over TLS as in
    /// cleartext, where it names the version that it wants on that very port. What it has taken over HTTP/2 it finishes.
    func speakHTTP1(to endpoint: Endpoint) {
        guard maySpeakHTTP1(to: endpoint) else { return }
        guard endpoint.http1Required(nowNs: nowNs, pauseNs: configuration.timeouts.http1PauseNs) else { return }
        logger.warning("a backend wants HTTP/1.1", metadata: ["backend": "\(endpoint.name)"])
        for slot in endpoint.http2Pool.retireAll() {
            closes(upstreams.occupant(slot), .http1Required)
            upstreams.occupant(slot)?.session?.markDirty()
        }
        for waiter in endpoint.http2Pool.dismissLine() { deferred.append(.reacquire(waiter, endpoint)) }
    }

    // MARK: Upgrades

    /// Whether the request goes over HTTP/2.
    func takesStream(_ exchange: Exchange, _ endpoint: Endpoint) -> Bool {
        guard exchange.head.wantsUpgrade else { return endpoint.takesHTTP2(nowNs: nowNs) }
        return upgradeTakesStream(exchange, endpoint)
    }

    /// HTTP/2 knows no Upgrade. A WebSocket is opened by extended CONNECT (RFC 8441) where the backend is known to take
    /// it. Else an https backend gets a connection for which HTTP/1.1 alone is offered, and with it any upgrade; one
    /// that is spoken to in HTTP/2 by prior knowledge is asked when its SETTINGS are here, and of other upgrades it
    /// does not hear (RFC 9110 §7.8 lets them be ignored).
    private func upgradeTakesStream(_ exchange: Exchange, _ endpoint: Endpoint) -> Bool {
        let takesHTTP2 = endpoint.takesHTTP2(nowNs: nowNs)
        let isWebSocket = isWebSocket(exchange)
        if endpoint.isSecure, maySpeakHTTP1(to: endpoint), !(takesHTTP2 && isWebSocket && endpoint.takesTunnels) {
            exchange.attempt.mustBeHTTP1 = true
            return false
        }
        exchange.attempt.http2.opensTunnel = isWebSocket
        return takesHTTP2
    }

    /// Whether the request is a WebSocket's opening handshake (RFC 6455 §4.1), as far as it matters here.
    private func isWebSocket(_ exchange: Exchange) -> Bool {
        guard exchange.head.method == .get, let retained = exchange.retained else { return false }
        parseAgainIfNeeded(exchange, retained)
        let bytes = retained.readable
        guard let upgrade = table.first(.upgrade),
            bytes.extracting(upgrade.value).matchesIgnoringCase("websocket")
        else { return false }
        return table.lines.contains { bytes.extracting($0.name).matchesIgnoringCase("sec-websocket-key") }
    }

    /// The connection does not take extended CONNECT. The stream that was counted for it goes to somebody else. Another
    /// connection to the same backend may have said the opposite, so the pool is not asked again.
    func tunnelRefused(_ exchange: Exchange, _ carrier: UpstreamConnection) {
        let endpoint = carrier.endpoint
        endpoint.http2Pool.streamClosed(on: carrier.slot)
        if endpoint.http2Pool.streams(on: carrier.slot) == 0 { carrier.idleSinceNs = nowNs }
        deferLine(endpoint)
        if endpoint.isSecure, maySpeakHTTP1(to: endpoint) {
            exchange.attempt.http2 = HTTP2Attempt()
            exchange.attempt.mustBeHTTP1 = true
            return acquireHTTP1(exchange, endpoint, allowsReuse: true)
        }
        let now = stampNs()
        exchange.attempt.http2.isUsed = true
        exchange.attempt.connection = carrier.number
        carrier.history?.isSeen(by: exchange.identity)
        if exchange.attempt.acquireEndNs == 0 { exchange.attempt.acquireEndNs = now }
        exchange.attempt.connectionEndNs = now
        exchange.attempt.error = .upgradeUnsupported
        abandonTrial(exchange)
        answer(exchange, .upgradeUnsupported)
    }

    /// The backend has answered the request as if it were any other. A client that opens a WebSocket over HTTP/2
    /// would take its 2xx for an open one (RFC 8441 §4).
    func upgradeIgnored(_ exchange: Exchange) {
        leaveUpstream(exchange)
        answer(exchange, .upgradeUnsupported)
    }
}
