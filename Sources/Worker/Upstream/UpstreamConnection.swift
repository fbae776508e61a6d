/// A connection to a backend, or a stream of one, whose object is reused from stream to stream. Carries one request at
/// a time.
final class UpstreamConnection: Connection, Reusable {
    private(set) var endpoint: Endpoint
    /// Number of the connection within the worker, for `connection.id`.
    private(set) var number: UInt64
    private(set) var address: Int
    var exchange: Exchange?
    var isConnecting: Bool
    /// Connected, and TLS is being agreed on.
    var isHandshaking = false
    /// In the pool, waiting for a request.
    var isIdle = false
    /// Requests finished on this connection.
    var requestCount = 0
    /// The stream that this is, where it is one, and the connection that it is on.
    private(set) var stream: HTTP2Stream?
    private(set) var carrier: UpstreamConnection?
    /// Counted in the pool for HTTP/2, itself or the connection that it is on.
    var isHTTP2: Bool
    /// HTTP/2 was not offered for it.
    var mustBeHTTP1 = false
    /// The response on this stream is whole, and the stream's end is awaited.
    var isLingering = false
    /// The frames of a connection that carries HTTP/2.
    var session: HTTP2Session?
    /// The server's SETTINGS are awaited; `exchange` is the request that makes the connection.
    var isMaking = false
    /// A stream that was lost with the connection has counted against the backend already.
    var isLossBlamed = false
    /// Its pool knows that too much waits on its streams.
    var isCongested = false
    var readyAtNs: UInt64 = 0
    var idleSinceNs: UInt64 = 0
    /// How many SETTINGS frames have been acted on.
    var settingsSeen = 0
    /// How many answers to PINGs have been noticed.
    var pingsSeen = 0
    /// For its trace, a stream's is that of its connection; nil where connections are not traced.
    var history: ConnectionHistory?

    init(
        descriptor: Int32, slot: Int, generation: UInt32, endpoint: Endpoint, number: UInt64, address: Int,
        isConnecting: Bool
    ) {
        self.endpoint = endpoint
        self.number = number
        self.address = address
        self.isConnecting = isConnecting
        stream = nil
        carrier = nil
        isHTTP2 = false
        super.init(descriptor: descriptor, slot: slot, generation: generation)
    }

    /// A stream of a connection that carries HTTP/2.
    init(_ stream: HTTP2Stream, on carrier: UpstreamConnection, slot: Int, generation: UInt32) {
        endpoint = carrier.endpoint
        number = carrier.number
        address = carrier.address
        isConnecting = false
        self.stream = stream
        self.carrier = carrier
        isHTTP2 = true
        super.init(descriptor: -1, slot: slot, generation: generation)
        transport = stream
        history = carrier.history
    }

    /// One that was reset becomes another stream.
    func begin(_ stream: HTTP2Stream, on carrier: UpstreamConnection, slot: Int, generation: UInt32) {
        begin(slot: slot, generation: generation)
        endpoint = carrier.endpoint
        number = carrier.number
        address = carrier.address
        self.stream = stream
        self.carrier = carrier
        isHTTP2 = true
        transport = stream
        history = carrier.history
    }

    /// A stream is over; it has neither exchange nor session.
    func reset() {
        (isConnecting, isHandshaking, isMaking, isIdle, isHTTP2) = (false, false, false, false, false)
        (mustBeHTTP1, isLossBlamed, isCongested, isLingering) = (false, false, false, false)
        (requestCount, readyAtNs, idleSinceNs, settingsSeen, pingsSeen) = (0, 0, 0, 0, 0)
        stream = nil
        carrier = nil
        history = nil
    }
}
