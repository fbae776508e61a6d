/// Bytes that are put together piece by piece and taken from the front, in a buffer of the pool that is changed for
/// a larger one when what waits does not fit, up to a limit. An object, so that whoever has one need not lend it
/// while it changes.
final class PooledText {
    private(set) var buffer: ByteBuffer?

    var count: Int { buffer?.readableBytes ?? 0 }

    /// The buffer, with room for `bytes` more. Nil when it would hold more than `bytesMax`.
    func room(_ bytes: Int, _ buffers: BufferPool, bytesMax: Int = .max) -> ByteBuffer? {
        guard let current = buffer else {
            guard bytes <= bytesMax else { return nil }
            let fresh = buffers.take(holding: bytes)
            buffer = fresh
            return fresh
        }
        guard current.readableBytes + bytes <= bytesMax else { return nil }
        if current.writableBytes >= bytes { return current }
        // What is taken from the front must not make the buffer grow. Where less than half waits, moving it costs no
        // more than what has come since it was moved last.
        if current.readableBytes <= current.capacity / 2, current.capacity - current.readableBytes >= bytes {
            current.compact()
            return current
        }
        let larger = Self.buffer(holding: max(current.readableBytes + bytes, 2 * current.capacity), buffers)
        larger.append(current.readable)
        buffers.give(current)
        buffer = larger
        return larger
    }

    /// Keeps bytes in front, and `end` behind them, in a buffer that is no larger than that needs.
    func shorten(to bytes: Int, end: StaticString, _ buffers: BufferPool) {
        guard let current = buffer else { return }
        let shorter = buffers.take(holding: bytes + end.utf8CodeUnitCount)
        shorter.append(current.readable.extracting(first: bytes))
        shorter.append(end)
        buffers.give(current)
        buffer = shorter
    }

    func release(_ buffers: BufferPool) {
        guard let current = buffer else { return }
        buffer = nil
        buffers.give(current)
    }

    /// Beyond the pool's large ones no larger than needed: the next size would be four times what a window lets in.
    private static func buffer(holding bytes: Int, _ buffers: BufferPool) -> ByteBuffer {
        bytes <= BufferPool.Size.large.rawValue ? buffers.take(holding: bytes) : ByteBuffer(capacity: bytes)
    }
}
