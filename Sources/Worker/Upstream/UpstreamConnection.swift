/// A connection to a backend. Carries one request at a time.
final class UpstreamConnection: Connection {
    let endpoint: Endpoint
    /// Number of the connection within the worker, for `connection.id`.
    let number: UInt64
    let address: Int
    var exchange: Exchange?
    var isConnecting: Bool
    /// Connected, and TLS is being agreed on.
    var isHandshaking = false
    /// In the pool, waiting for a request.
    var isIdle = false
    /// Requests finished on this connection.
    var requestCount = 0

    init(
        descriptor: Int32, slot: Int, generation: UInt32, endpoint: Endpoint, number: UInt64, address: Int,
        isConnecting: Bool
    ) {
        self.endpoint = endpoint
        self.number = number
        self.address = address
        self.isConnecting = isConnecting
        super.init(descriptor: descriptor, slot: slot, generation: generation)
    }
}
