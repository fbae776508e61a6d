/// Streams come and go with every request, and so do the connections that wrap them; their objects stay.
///
///     closed or forgotten ─► leaving ─ end of the turn, nobody refers to it ─► free ─► next stream
///
/// An object that leaves stays what it was until the turn ends: those that called whatever closed it may still look
/// at it, and must not find somebody else's.
final class StreamObjects {
    /// More streams than these are seldom open at once; a turn seldom closes more.
    private static let countMax = 256

    private let freeClients = ReuseList<DownstreamConnection>(countMax: countMax)
    private let freeUpstreams = ReuseList<UpstreamConnection>(countMax: countMax)
    private let leavingClients = ObjectList<DownstreamConnection>()
    private let leavingUpstreams = ObjectList<UpstreamConnection>()
    private let leavingStreams = ObjectList<HTTP2Stream>()

    /// Connections that wait for their next use.
    var freeCount: Int { freeClients.count + freeUpstreams.count }

    /// A client's stream as a connection.
    func client(_ stream: HTTP2Stream, slot: Int, generation: UInt32, peer: PeerName) -> DownstreamConnection {
        guard let connection = freeClients.take() else {
            return DownstreamConnection(stream, slot: slot, generation: generation, peer: peer)
        }
        connection.begin(stream, slot: slot, generation: generation, peer: peer)
        return connection
    }

    /// A stream to a backend as a connection.
    func upstream(
        _ stream: HTTP2Stream, on carrier: UpstreamConnection, slot: Int, generation: UInt32
    ) -> UpstreamConnection {
        guard let connection = freeUpstreams.take() else {
            return UpstreamConnection(stream, on: carrier, slot: slot, generation: generation)
        }
        connection.begin(stream, on: carrier, slot: slot, generation: generation)
        return connection
    }

    func closed(_ client: DownstreamConnection) { leavingClients.append(client) }

    func closed(_ upstream: UpstreamConnection) { leavingUpstreams.append(upstream) }

    /// libnghttp2 has closed it, and its session has forgotten it.
    func forgotten(_ stream: HTTP2Stream) { leavingStreams.append(stream) }

    /// The turn is over. Connections go first: they refer to streams.
    func turnEnds(_ free: ReuseList<HTTP2Stream>) {
        while let client = leavingClients.popLast() { freeClients.keep(client) }
        while let upstream = leavingUpstreams.popLast() { freeUpstreams.keep(upstream) }
        while let stream = leavingStreams.popLast() { free.keep(stream) }
    }
}
