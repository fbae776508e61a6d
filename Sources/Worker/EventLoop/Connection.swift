import Glibc
import ShmRing

/// What a client's and a backend's connection have in common: a socket, what was read from it and not
/// yet used, what was written for it and not yet taken.
///
/// Registered edge-triggered, so a connection remembers what the kernel said last: `isReadable` until a
/// read came back short, `isWritable` until a write was refused.
class Connection {
    final let descriptor: Int32
    final let slot: Int
    final let generation: UInt32
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
    /// Kept by `Deadlines`.
    final var deadline = Deadline()

    init(descriptor: Int32, slot: Int, generation: UInt32) {
        self.descriptor = descriptor
        self.slot = slot
        self.generation = generation
    }

    /// Whether bytes wait in `input`.
    final var hasInput: Bool { !(input?.isEmpty ?? true) }
    /// Whether bytes wait in `output`.
    final var hasOutput: Bool { !(output?.isEmpty ?? true) }

    /// Takes over what epoll said.
    final func noticed(_ readiness: Readiness) {
        if readiness.isReadable { isReadable = true }
        if readiness.isWritable { isWritable = true }
        if readiness.peerFinished || readiness.isBroken {
            peerFinished = true
            isReadable = true
        }
    }

    /// One read into `input`. Buffers that stay empty go back to the pool at once.
    final func receive(_ buffers: BufferPool) -> IOResult {
        guard isReadable, !sawEnd else { return sawEnd ? .endOfStream : .wouldBlock }
        let buffer = bufferWithRoom(buffers)
        let room = buffer.writableBytes
        let result = buffer.receive(from: descriptor)
        switch result {
        case .bytes(let count):
            // A short read emptied the socket; what comes later makes a new edge, except an end that
            // epoll has announced already.
            if count < room, !peerFinished { isReadable = false }
        case .wouldBlock:
            isReadable = false
        case .endOfStream, .failed:
            sawEnd = true
        }
        releaseEmptyInput(buffers)
        return result
    }

    /// Writes as much of `output` as the kernel takes.
    /// - Returns: `.bytes(0)` when there is nothing left, `.wouldBlock` when something is.
    final func flush(_ buffers: BufferPool) -> IOResult {
        guard let pending = output else { return .bytes(0) }
        while !pending.isEmpty {
            guard isWritable else { return .wouldBlock }
            switch pending.send(to: descriptor) {
            case .bytes: continue
            case .wouldBlock: isWritable = false
            case .endOfStream: preconditionFailure("send(2) has no end of stream")
            case .failed(let error): return .failed(error)
            }
        }
        output = nil
        buffers.give(pending)
        return .bytes(0)
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
        Glibc.close(descriptor)
    }

    private final func bufferWithRoom(_ buffers: BufferPool) -> ByteBuffer {
        guard let current = input else {
            let fresh = buffers.take(.large)
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
