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

    /// The address of the index did not answer; the next connection tries another one.
    func addressFailed(_ index: Int) {
        if index == addressIndex { addressIndex = (addressIndex + 1) % addresses.count }
    }
}
