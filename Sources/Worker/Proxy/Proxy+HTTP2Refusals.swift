import Logging
import ShmRing

/// What HTTP/2 peers do that is not served: requests that were over before they began, and connections that ask too
/// much.
extension Proxy {
    /// A request that is malformed, or that its client has reset before anybody looked at it. There is nobody to
    /// answer; somebody may want to know.
    func tellUnserved(_ stream: HTTP2Stream, on session: HTTP2Session) {
        guard isTimed, let carrier = session.downstream, unserved.admits(nowNs: nowNs) else {
            return stream.close(isReset: false)
        }
        let inserted = downstreams.insert { slot, generation in
            DownstreamConnection(stream, slot: slot, generation: generation, peer: carrier.peer)
        }
        guard let client = inserted else { return stream.close(isReset: false) }
        streamCount += 1
        client.isReadable = true
        client.isSecure = carrier.isSecure
        _ = client.receive(buffers)
        let exchange = openUnserved(client)
        exchange.error = stream.refusal ?? .clientClosed
        closeExchange(exchange)
        closeDownstream(client)
    }

    /// An exchange with everything that the head says.
    private func openUnserved(_ client: DownstreamConnection) -> Exchange {
        tableOwner = nil
        guard let input = client.input, case .complete(let head) = requestParser.parse(input.readable, into: table)
        else {
            let exchange = openExchange(client)
            if let tracer { exchange.identity = tracer.identify() }
            retainRefused(exchange, client)
            return exchange
        }
        let exchange = openExchange(client)
        exchange.head = head
        _ = retainRequest(exchange, head, input)
        tableOwner = exchange
        identify(exchange)
        return exchange
    }

    /// A client's connection is ended for asking too much.
    func logImpatience(_ cause: HTTP2Patience.Cause, client: DownstreamConnection) {
        unserved.impatienceCount += 1
        guard unserved.impatienceLog.allows(nowNs: nowNs) else { return }
        let ip = client.peer.ip
        logger.warning(
            "a client's HTTP/2 connection is ended",
            metadata: [
                "reason": "\(cause.text)", "client": "\(String(decoding: ip.indices.map { ip[$0] }, as: UTF8.self))",
                "connections": "\(unserved.takeImpatienceCount())",
            ])
    }

    /// The same for a backend's.
    func logImpatience(_ cause: HTTP2Patience.Cause, backend: Endpoint) {
        guard unserved.impatienceLog.allows(nowNs: nowNs) else { return }
        logger.warning(
            "a backend's HTTP/2 connection is ended",
            metadata: ["reason": "\(cause.text)", "backend": "\(backend.name)"])
    }
}

/// How many requests that were not served may be told of, and which connections that ask too much have been: a flood
/// must fill neither the ring nor the log.
struct UnservedRequests {
    static let burst = 200
    static let perSecond = 50

    private var left = Self.burst
    private var refilledNs: UInt64 = 0
    var impatienceLog = LogPause()
    /// Connections ended since the last line.
    var impatienceCount = 0

    mutating func admits(nowNs: UInt64) -> Bool {
        let stepNs = UInt64(1_000_000_000 / Self.perSecond)
        let steps = nowNs > refilledNs ? (nowNs - refilledNs) / stepNs : 0
        if steps > 0 {
            left = min(Self.burst, left + Int(min(steps, UInt64(Self.burst))))
            refilledNs += steps * stepNs
        }
        guard left > 0 else { return false }
        left -= 1
        return true
    }

    mutating func takeImpatienceCount() -> Int {
        defer { impatienceCount = 0 }
        return impatienceCount
    }
}
