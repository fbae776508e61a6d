import ShmRing

/// One backend as one worker knows it: where it is, how it fares, which connections lead there.
final class Endpoint {
    let index: Int
    let name: String
    let hostname: String?
    let addresses: [SocketAddress]
    /// The addresses as text, for traces.
    let addressTexts: [String]
    /// The name or the literal address, without a port.
    let host: String
    /// Nil for a Unix socket.
    let port: Int?
    /// The Host field of a request that has none.
    let hostField: String
    let isSecure: Bool
    /// The last TLS session there.
    let sessionMemory = SessionMemory()
    var tlsFailureLog = LogPause()
    private(set) var health: HealthState
    /// Whether new connections are taken for HTTP/2, and are in `http2Pool`: known for h2c, and what the last TLS
    /// handshake came to for https.
    var isHTTP2: Bool
    /// Until when it is spoken to in HTTP/1.1 whatever it agreed to before, because it has asked for that; 0: it has not.
    private(set) var http1UntilNs: UInt64 = 0
    /// The server has announced extended CONNECT (RFC 8441 §3), by its last SETTINGS.
    var takesTunnels = false
    var pool: PoolState
    var http2Pool: HTTP2PoolState
    /// The address that the next connection goes to; moves on when one cannot be reached.
    private(set) var addressIndex = 0

    init(
        index: Int, _ backend: WorkerConfiguration.Backend, health: HealthState, pool: PoolState,
        http2Pool: HTTP2PoolState = HTTP2PoolState()
    ) {
        isHTTP2 = backend.isHTTP2
        self.http2Pool = http2Pool
        self.index = index
        name = backend.name
        hostname = backend.hostname
        addresses = backend.addresses
        addressTexts = backend.addresses.map(\.ip)
        host = backend.hostname ?? backend.addresses[0].ip
        port = backend.addresses[0].port.map(Int.init)
        hostField = backend.addresses[0].port == nil ? "localhost" : backend.name
        isSecure = backend.isSecure
        self.health = health
        self.pool = pool
    }

    /// Tells the health state something. It is copied out and in, so that nothing else is called while it changes:
    /// then the compiler can prove its accesses exclusive, and no check is left for run time.
    @inline(__always)
    func updateHealth<Result>(_ event: (inout HealthState) -> Result) -> Result {
        var state = health
        let result = event(&state)
        health = state
        return result
    }

    /// Whether a request goes over HTTP/2 now.
    func takesHTTP2(nowNs: UInt64) -> Bool { isHTTP2 && !isPaused(nowNs: nowNs) }

    /// HTTP/2 rests.
    func isPaused(nowNs: UInt64) -> Bool { nowNs < http1UntilNs }

    /// The backend wants HTTP/1.1 (RFC 9113 §7), and gets it for a while.
    /// - Returns: Whether that is news.
    func http1Required(nowNs: UInt64, pauseNs: UInt64) -> Bool {
        let isNews = !isPaused(nowNs: nowNs)
        http1UntilNs = nowNs &+ pauseNs
        return isNews
    }

    /// The address of the index did not answer; the next connection tries another one.
    func addressFailed(_ index: Int) {
        if index == addressIndex { addressIndex = (addressIndex + 1) % addresses.count }
    }
}
