import CShims

/// Flow control (RFC 9113 §5.2): how much a peer may send of each body, and how much may wait for it.
///
/// A stream begins with a window that holds most messages. Whose bytes are taken as they come gets a larger one, as
/// long as what all streams together may send leaves half of the connection's window to the others: streams that
/// nobody takes from cannot close it for those that are read.
///
///     wide ─ much waits on its streams, or in the worker ─► tight ─ most of it is taken, some time later ─► wide
///
/// In a tight session the first window is none, which takes back what the streams that are there may still send, and
/// a stream gets as much as whoever takes from it has room for at that moment, until it has shown that its bytes are
/// taken as they come.
extension HTTP2Session {
    /// A session stays tight for a while, so that a peer does not get SETTINGS all the time.
    private static let tightNs: UInt64 = 2_000_000_000

    /// Gives the peer credit for bytes that were handed on.
    func consume(_ stream: HTTP2Stream, bytes: Int) {
        waitingBytes -= bytes
        guard !isDead else { return }
        if role == .server { patience.moved(bytes) }
        _ = unsafe nghttp2_session_consume(raw, stream.id, bytes)
        if isTight { settleWindows() }
        if unsafe nghttp2_session_want_write(raw) != 0 { markDirty() }
    }

    /// Becomes tight where much waits, and wide again.
    func settleWindows() {
        let limits = context.limits
        let bytesMax = context.scarcity != .plenty ? limits.firstWindowBytes : limits.connectionWindowBytes / 4
        if isTight {
            let isOver = waitingBytes < bytesMax / 4 && context.nowNs >= tightSinceNs &+ Self.tightNs
            if isOver, announce(firstWindowBytes: limits.firstWindowBytes) { isTight = false }
        } else if waitingBytes > bytesMax, announce(firstWindowBytes: 0) {
            isTight = true
            tightSinceNs = context.nowNs
        }
    }

    private func announce(firstWindowBytes: Int) -> Bool {
        guard !isDead else { return false }
        markDirty()
        return submit([Self.setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, firstWindowBytes)])
    }

    /// From now on the windows are as announced. Streams that were waiting for more may have none.
    func windowsChanged() {
        guard isTight else { return }
        for index in 0..<streams.count where streams[index].awaitsData {
            widen(streams[index], to: context.limits.tightWindowBytes)
        }
    }

    /// Everything that has come on a stream is taken.
    func keptUp(_ stream: HTTP2Stream) {
        let limits = context.limits
        let more = limits.streamWindowBytes - (isTight ? 0 : limits.firstWindowBytes)
        guard context.scarcity == .plenty, more > 0, stream.raisedBytes == 0,
            stream.bodyBytesTaken >= limits.firstWindowBytes / 2,
            raisedBytes + more <= limits.connectionWindowBytes / 4
        else { return }
        stream.raisedBytes = more
        raisedBytes += more
        widen(stream, to: limits.streamWindowBytes)
    }

    /// Somebody has room for so many bytes of a stream on which nothing has come.
    func wanted(_ stream: HTTP2Stream, bytes: Int) {
        if isTight { widen(stream, to: min(bytes, context.limits.tightWindowBytes)) }
    }

    private func widen(_ stream: HTTP2Stream, to bytes: Int) {
        guard !isDead, unsafe nghttp2_session_get_stream_effective_local_window_size(raw, stream.id) < bytes else {
            return
        }
        _ = unsafe nghttp2_session_set_local_window_size(
            raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, Int32(bytes))
        markDirty()
    }

    /// How much may wait for the peer on a stream. As a rule enough for most messages, so that those who send them are
    /// free for others. Where memory is short, or much waits on other streams already, it is no more than the peer
    /// lets out, save a little, whose leaving tells that it lets out more.
    func outboundRoom(_ stream: HTTP2Stream) -> BufferPool.Size {
        let large = BufferPool.Size.large.rawValue
        let isWide = context.scarcity == .plenty
        if isWide, outboundBytes + large <= context.limits.outboundBytesMax { return .large }
        let window = unsafe min(
            nghttp2_session_get_stream_remote_window_size(raw, stream.id),
            nghttp2_session_get_remote_window_size(raw))
        let bytes = isWide ? Int(window) : min(Int(window), large - outboundBytes)
        if bytes >= large / 2 { return .large }
        return bytes >= BufferPool.Size.medium.rawValue / 4 || context.scarcity == .tight ? .medium : .small
    }
}
