import ShmRing

/// What stands between a connection's bytes and its socket, where something does: a TLS session, or one
/// stream among many.
///
/// A connection without one uses its socket directly. With one, `Connection` asks the transport in the same
/// places, and whoever uses the connection does not know. The rules are those of a non-blocking socket:
///
/// - `.wouldBlock` means that an event will say when to try again. The connection then clears its flag, and
///   whoever hears of the event sets it: `Connection.noticed` where the connection has a descriptor, else the
///   transport's owner.
/// - What a send took has left the caller's buffer, but the transport may hold it back: `hasBacklog`. Bytes
///   count as gone when `flush` says so.
/// - A receive may leave bytes inside that no event will announce, so only `isDrained` says that nothing is left.
class Transport {
    /// After a receive that returned bytes: there is nothing more before the next event.
    final var isDrained = false
    /// The last receive waits for room in the socket, not for bytes.
    final var receiveAwaitsWritable = false
    /// The last send waits for bytes from the peer, not for room.
    final var sendAwaitsReadable = false

    /// Something that a send took has not reached the kernel.
    var hasBacklog: Bool { false }

    /// The socket has something to read, or may have.
    func socketBecameReadable() {}

    /// Puts bytes into the free part of `buffer`, which is not empty.
    func receive(into buffer: ByteBuffer) -> IOResult { preconditionFailure("a transport that cannot receive") }

    /// Takes up to `countMax` unread bytes, and consumes what it took.
    /// - Returns: `.bytes` with at least 1, `.wouldBlock` or `.failed`.
    func send(from buffer: ByteBuffer, countMax: Int) -> IOResult {
        preconditionFailure("a transport that cannot send")
    }

    /// Takes all of `buffer`, then up to `countMax` bytes of `next`, as far as it can; consumes what it took from
    /// either. The result counts both.
    func send(from buffer: ByteBuffer, then next: ByteBuffer, countMax: Int) -> IOResult {
        let result = send(from: buffer, countMax: buffer.readableBytes)
        guard case .bytes(let first) = result, buffer.isEmpty, countMax > 0 else { return result }
        // What goes wrong now will go wrong again when the caller comes with the rest.
        guard case .bytes(let second) = send(from: next, countMax: countMax) else { return result }
        return .bytes(first + second)
    }

    /// How many bytes a send may take soon: not worth reading more than that from where they come.
    var sendBytesMax: Int { BufferPool.Size.large.rawValue }

    /// So large a buffer was read of a request or response that passes, and waits behind this.
    func holds(behind capacity: Int, ofRequest: Bool) {}

    /// Hands on what sends took.
    /// - Returns: `.bytes(0)` when nothing is left.
    func flush() -> IOResult { .bytes(0) }

    /// Says to the peer that no more bytes come. Receiving goes on.
    func finishSending() {}

    /// The trailers of a message whose length is known, which HTTP/1.1 text has no place for: nil until the message has
    /// its end.
    var endOfMessage: [UInt8]? { [] }

    /// Ends the message, which was held open for this.
    func endMessage(trailers: [UInt8]) {}

    /// From now on the socket's end is the end of the peer's bytes, even where the transport has an end of its own.
    func acceptBareEnd() {}

    /// The end of both directions; called once. The descriptor is the connection's.
    /// - Parameter isReset: The peer must not take it for an orderly end.
    func close(isReset: Bool) {}
}
