import ShmRing

/// A client's connection, or a stream of one, whose object is reused from stream to stream.
final class DownstreamConnection: Connection, Reusable {
    enum Phase {
        /// TLS is being agreed on.
        case handshaking
        /// Between requests, or while a head arrives.
        case reading
        /// A request is being served; `exchange` is set.
        case serving
        /// The last answer is out; what the client still sends is read and thrown away for a moment, so
        /// that a reset does not destroy the answer on its way (RFC 9112 §9.6).
        case lingering
        /// Carries HTTP/2; `session` is set, and requests come on streams, which are connections of their own.
        case carrying
    }

    /// How far the end of a carrier has been announced.
    enum DrainStep {
        case none, announced, refusing
    }

    var phase = Phase.reading
    /// Whether TLS is between the client and this proxy.
    var isSecure = false
    /// What backends are told of the certificate that the client has shown; empty where none is asked for.
    var certificateLines: [UInt8] = []
    var exchange: Exchange?
    private(set) var peer: PeerName
    /// Requests begun on this connection.
    var requestCount = 0
    /// When the first byte of the request being read arrived, monotonic ns; 0 when none has.
    var headStartedNs: UInt64 = 0
    /// Bytes thrown away while lingering.
    var lingeredBytes = 0
    /// The frames of a connection that carries HTTP/2.
    var session: HTTP2Session?
    var drainStep = DrainStep.none
    /// The stream that this is, where it is one: then it has no socket, and ends with its first request.
    private(set) var stream: HTTP2Stream?

    /// Whether another process could go on with it: everything about it that matters is in the socket. The keys of a
    /// transport are not.
    var isPortable: Bool { transport == nil && session == nil }

    init(descriptor: Int32, slot: Int, generation: UInt32, peer: PeerName) {
        self.peer = peer
        stream = nil
        super.init(descriptor: descriptor, slot: slot, generation: generation)
    }

    /// A stream of a connection that carries HTTP/2.
    init(_ stream: HTTP2Stream, slot: Int, generation: UInt32, peer: PeerName) {
        self.peer = peer
        self.stream = stream
        super.init(descriptor: -1, slot: slot, generation: generation)
        transport = stream
    }

    /// One that was reset becomes another stream.
    func begin(_ stream: HTTP2Stream, slot: Int, generation: UInt32, peer: PeerName) {
        begin(slot: slot, generation: generation)
        self.peer = peer
        self.stream = stream
        transport = stream
    }

    /// A stream is over. It has no exchange and carries nothing.
    func reset() {
        phase = .reading
        isSecure = false
        if !certificateLines.isEmpty { certificateLines = [] }
        requestCount = 0
        headStartedNs = 0
        lingeredBytes = 0
        drainStep = .none
        stream = nil
    }
}

/// The client's address as it goes into header fields and traces, formatted once a connection.
struct PeerName {
    private var text = InlineArray<45, UInt8>(repeating: 0)
    private var count: UInt8 = 0
    let port: UInt16

    init(_ address: SocketAddress) {
        port = address.port ?? 0
        let ip = address.port == nil ? "unix:" : address.ip
        for byte in ip.utf8.prefix(45) {
            text[Int(count)] = byte
            count += 1
        }
    }

    /// Whether the address needs brackets before a port.
    var isIPv6: Bool {
        for index in 0..<Int(count) where text[index] == UInt8(ascii: ":") { return port != 0 }
        return false
    }

    /// The IP address.
    var ip: Span<UInt8> {
        @_lifetime(borrow self)
        borrowing get { text.span.extracting(first: Int(count)) }
    }
}
