/// The rest of requests that were answered early.
///
/// RFC 9113 §8.1 lets a server reset such a stream with NO_ERROR as soon as its answer is out. Clients that are in the
/// middle of an upload take that badly: some hang, some throw the answer away. So the rest is read and thrown away for
/// a while, and only who has not ended the request by then is told to stop.
extension HTTP2Session {
    /// The answer is out, and nobody wants what still comes.
    func discardRest(of stream: HTTP2Stream) {
        stream.isWaitingForRest = false
        guard !isDead, !stream.isClosed, !stream.isResetting else { return }
        // What comes through a tunnel is no request that the client would have to finish.
        if stream.isTunnel { return submitReset(stream, .noError) }
        // Whatever the deadline of the connection was: it is another now.
        markDirty()
        if discarding.count == context.limits.discardingMax { submitReset(discarding.removeFirst(), .noError) }
        stream.isDiscarding = true
        stream.discardStartNs = context.nowNs
        discarding.append(stream)
    }

    /// Bytes came for a stream that the proxy has let go of.
    func discarded(_ bytes: Int, of stream: HTTP2Stream) {
        guard stream.isDiscarding else { return }
        stream.discardedBytes += bytes
        guard stream.discardedBytes > context.limits.discardBytesMax else { return }
        stopDiscarding(stream)
        submitReset(stream, .noError)
    }

    /// Tells those to stop whose time is over.
    /// - Parameter nowNs: The time that the deadline was held against, which may be later than the turn's.
    func endDiscards(nowNs: UInt64) {
        while let oldest = discarding.first, nowNs >= oldest.discardStartNs &+ context.limits.discardNs {
            submitReset(discarding.removeFirst(), .noError)
        }
    }

    func stopDiscarding(_ stream: HTTP2Stream) { discarding.removeAll { $0 === stream } }

    /// When the first of them began.
    var discardStartNs: UInt64? { discarding.first?.discardStartNs }
}
