/// Bytes that are put together piece by piece, in a buffer of the pool that is changed for a larger one when it
/// is full, up to a limit. An object, so that whoever has one need not lend it while it changes.
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
        let larger = buffers.take(holding: max(current.readableBytes + bytes, 2 * current.capacity))
        larger.append(current.readable)
        buffers.give(current)
        buffer = larger
        return larger
    }

    func release(_ buffers: BufferPool) {
        if let current = buffer.take() { buffers.give(current) }
    }
}
