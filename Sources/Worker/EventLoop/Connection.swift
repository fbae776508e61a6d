import Glibc
import ShmRing

/// What a client's and a backend's connection have in common: a socket, what was read from it and not
/// yet used, what was written for it and not yet taken. Its bytes may pass a `Transport` on their way.
///
/// Registered edge-triggered, so a connection remembers what the kernel said last: `isReadable` until a
/// read came back short, `isWritable` until a write was refused.
class Connection {
    /// -1 where the transport needs no socket of its own.
    final let descriptor: Int32
    private(set) final var slot: Int
    private(set) final var generation: UInt32
    /// Bytes from the peer that nobody has used; nil when there are none.
    final var input: ByteBuffer?
    /// Bytes for the peer that the kernel has not taken; nil when there are none.
    final var output: ByteBuffer?
    final var isReadable = false
    final var isWritable = true
    /// The kernel announced the peer's FIN; bytes before it may still wait.
    final var peerFinished = false
    /// The end of the peer's bytes has been read.
    final var sawEnd = false
    final var isClosed = false
    /// Nil where the bytes go straight to the socket.
    final var transport: Transport?
    private final var endsWithReset = false
    /// FIN follows what the transport holds back.
    private final var finishesWithBacklog = false
    /// Kept by `Deadlines`.
    final var deadline = Deadline()

    init(descriptor: Int32, slot: Int, generation: UInt32) {
        self.descriptor = descriptor
        self.slot = slot
        self.generation = generation
    }

    /// Makes one that is closed and never had a socket as good as new, in a place of its own.
    final func begin(slot: Int, generation: UInt32) {
        precondition(isClosed && descriptor < 0, "connection \(self.slot) is in use")
        (self.slot, self.generation) = (slot, generation)
        (isReadable, isWritable, peerFinished, sawEnd, isClosed) = (false, true, false, false, false)
        (endsWithReset, finishesWithBacklog) = (false, false)
        deadline = Deadline()
    }

    /// Whether bytes wait in `input`.
    final var hasInput: Bool { !(input?.isEmpty ?? true) }
    /// Whether bytes wait in `output`, or behind it.
    final var hasOutput: Bool { !(output?.isEmpty ?? true) || transport?.hasBacklog ?? false }

    /// Takes over what epoll said.
    final func noticed(_ readiness: Readiness) {
        if readiness.isReadable { isReadable = true }
        if readiness.isWritable { isWritable = true }
        if readiness.peerFinished || readiness.isBroken {
            peerFinished = true
            isReadable = true
        }
        if let transport { noticed(readiness, transport) }
    }

    /// A transport may wait for the other direction than the one that is asked for.
    private final func noticed(_ readiness: Readiness, _ transport: Transport) {
        if isReadable { transport.socketBecameReadable() }
        if readiness.isWritable, transport.hasBacklog { handOn(transport) }
        if readiness.isWritable, transport.receiveAwaitsWritable { isReadable = true }
        if readiness.isReadable, transport.sendAwaitsReadable { isWritable = true }
    }

    /// One read into `input`. Buffers that stay empty go back to the pool at once.
    /// - Parameter bytesMax: Where nothing waits there yet, no more than this is read, rounded up to a buffer's size.
    final func receive(_ buffers: BufferPool, bytesMax: Int = BufferPool.Size.large.rawValue) -> IOResult {
        guard isReadable, !sawEnd else { return sawEnd ? .endOfStream : .wouldBlock }
        let buffer = bufferWithRoom(buffers, bytesMax: bytesMax)
        let room = buffer.writableBytes
        let result = transport?.receive(into: buffer) ?? buffer.receive(from: descriptor)
        switch result {
        case .bytes(let count):
            // A short read emptied the socket; what comes later makes a new edge, except an end that
            // epoll has announced already.
            if transport?.isDrained ?? (count < room), !peerFinished { isReadable = false }
        case .wouldBlock:
            isReadable = false
        case .endOfStream, .failed:
            sawEnd = true
        }
        releaseEmptyInput(buffers)
        return result
    }

    /// How much it is worth to read for this connection at once.
    final var sendBytesMax: Int { transport?.sendBytesMax ?? BufferPool.Size.large.rawValue }

    /// Sends what waits in `output` and then up to `countMax` bytes of `next`, in one go.
    final func send(_ next: ByteBuffer, countMax: Int) -> IOResult {
        if let transport {
            guard let pending = output else { return transport.send(from: next, countMax: countMax) }
            return transport.send(from: pending, then: next, countMax: countMax)
        }
        guard let pending = output else { return next.send(to: descriptor, countMax: countMax) }
        return pending.send(to: descriptor, then: next, countMax: countMax)
    }

    /// Writes as much of `output` as the kernel takes.
    /// - Returns: `.bytes(0)` when there is nothing left, `.wouldBlock` when something is.
    final func flush(_ buffers: BufferPool) -> IOResult {
        guard let pending = output else { return transport == nil ? .bytes(0) : flushTransport() }
        while !pending.isEmpty {
            guard isWritable else { return .wouldBlock }
            switch transport?.send(from: pending, countMax: pending.readableBytes) ?? pending.send(to: descriptor) {
            case .bytes: continue
            case .wouldBlock: isWritable = false
            case .endOfStream: preconditionFailure("send(2) has no end of stream")
            case .failed(let error): return .failed(error)
            }
        }
        output = nil
        buffers.give(pending)
        return transport == nil ? .bytes(0) : flushTransport()
    }

    /// What the transport took and still holds.
    private final func flushTransport() -> IOResult {
        guard let transport, transport.hasBacklog else { return .bytes(0) }
        guard isWritable else { return .wouldBlock }
        let result = transport.flush()
        if result == .wouldBlock { isWritable = false }
        return result
    }

    /// Room for `bytes` more in `output`.
    final func outputBuffer(room bytes: Int, _ buffers: BufferPool) -> ByteBuffer {
        guard let current = output else {
            let fresh = buffers.take(holding: max(bytes, BufferPool.Size.medium.rawValue))
            output = fresh
            return fresh
        }
        if current.writableBytes >= bytes { return current }
        current.compact()
        if current.writableBytes >= bytes { return current }
        let larger = buffers.take(holding: current.readableBytes + bytes)
        larger.append(current.readable)
        buffers.give(current)
        output = larger
        return larger
    }

    final func releaseEmptyInput(_ buffers: BufferPool) {
        guard let current = input, current.isEmpty else { return }
        input = nil
        buffers.give(current)
    }

    /// Keeps few unread bytes in a small buffer, so that many slow peers do not hold many large ones.
    final func parkInput(_ buffers: BufferPool) {
        guard let current = input else { return }
        let count = current.readableBytes
        let small = BufferPool.Size.small.rawValue
        guard count > 0, count <= small, current.capacity > small else { return releaseEmptyInput(buffers) }
        let parked = buffers.take(.small)
        parked.append(current.readable)
        buffers.give(current)
        input = parked
    }

    /// Closes the socket and gives the buffers back.
    final func close(_ buffers: BufferPool) {
        precondition(!isClosed, "connection \(slot) closed twice")
        isClosed = true
        if let buffer = input { buffers.give(buffer) }
        if let buffer = output { buffers.give(buffer) }
        input = nil
        output = nil
        transport?.close(isReset: endsWithReset)
        transport = nil
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// What the transport held back goes on, whoever waits for it.
    private final func handOn(_ transport: Transport) {
        if transport.flush() == .bytes(0), finishesWithBacklog, descriptor >= 0 { Socket.finishSending(descriptor) }
    }

    /// Tells the peer that nothing more comes, with FIN; reading goes on.
    final func finishSending() {
        transport?.finishSending()
        finishesWithBacklog = transport?.hasBacklog ?? false
        if descriptor >= 0, !finishesWithBacklog { Socket.finishSending(descriptor) }
    }

    /// What says that nothing more comes waits for room in the socket.
    final var isEndHeldBack: Bool { finishesWithBacklog && descriptor >= 0 && transport?.hasBacklog ?? false }

    /// Makes `close` look like a broken connection and not like a clean end.
    final func resetOnClose() {
        endsWithReset = true
        if descriptor >= 0 { Socket.resetOnClose(descriptor) }
    }

    private final func bufferWithRoom(_ buffers: BufferPool, bytesMax: Int) -> ByteBuffer {
        guard let current = input else {
            let fresh = buffers.take(holding: bytesMax)
            input = fresh
            return fresh
        }
        current.compact()
        if current.writableBytes >= current.capacity / 2 { return current }
        let larger = buffers.take(holding: current.capacity * 2)
        larger.append(current.readable)
        buffers.give(current)
        input = larger
        return larger
    }
}
