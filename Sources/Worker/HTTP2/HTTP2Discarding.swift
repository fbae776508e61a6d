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
        (stream.discardStartNs, stream.discardProgressNs) = (context.nowNs, context.nowNs)
        discarding.append(stream)
    }

    /// Bytes came for a stream that the proxy has let go of.
    func discarded(_ bytes: Int, of stream: HTTP2Stream) {
        guard stream.isDiscarding else { return }
        stream.discardedBytes += bytes
        stream.discardProgressNs = context.nowNs
        guard stream.discardedBytes > context.limits.discardBytesMax else { return }
        stopDiscarding(stream)
        submitReset(stream, .noError)
    }

    /// Tells those to stop whose time is over.
    /// - Parameter nowNs: The time that the deadline was held against, which may be later than the turn's.
    func endDiscards(nowNs: UInt64) {
        for stream in discarding where nowNs >= dueNs(stream) {
            stopDiscarding(stream)
            submitReset(stream, .noError)
        }
    }

    /// After some silence, or when it has gone on for long.
    private func dueNs(_ stream: HTTP2Stream) -> UInt64 {
        let limits = context.limits
        return min(stream.discardProgressNs &+ limits.discardNs, stream.discardStartNs &+ limits.discardNsMax)
    }

    func stopDiscarding(_ stream: HTTP2Stream) { discarding.removeAll { $0 === stream } }

    /// When the first of them is to be told, as things stand.
    var discardDueNs: UInt64? { discarding.isEmpty ? nil : discarding.reduce(.max) { min($0, dueNs($1)) } }
}
