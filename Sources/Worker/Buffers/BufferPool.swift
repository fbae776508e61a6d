/// Buffers of a few sizes, last in first out, so that the buffer in use is the one in the cache.
///
/// A connection holds a buffer only while it has bytes to keep: an idle one has none. The pool keeps a
/// bounded number of free buffers of each size and gives the rest back to the system.
final class BufferPool {
    /// Sizes in bytes: a parked head, a message, a body in flow, the longest head that flags may allow.
    enum Size: Int, CaseIterable {
        case small = 1024
        case medium = 16384
        case large = 65536
        case huge = 1_048_576

        /// Free buffers of this size that are kept.
        var freeMax: Int {
            switch self {
            case .small: 256
            case .medium: 64
            case .large: 16
            case .huge: 0
            }
        }
    }

    /// Free buffers of one size.
    private struct Stack {
        var free: ContiguousArray<ByteBuffer> = []

        mutating func push(_ buffer: ByteBuffer, countMax: Int) {
            if free.count < countMax { free.append(buffer) }
        }
    }

    private var small = Stack()
    private var medium = Stack()
    private var large = Stack()

    /// An empty buffer.
    func take(_ size: Size) -> ByteBuffer {
        switch size {
        case .small: small.free.popLast() ?? ByteBuffer(capacity: size.rawValue)
        case .medium: medium.free.popLast() ?? ByteBuffer(capacity: size.rawValue)
        case .large: large.free.popLast() ?? ByteBuffer(capacity: size.rawValue)
        case .huge: ByteBuffer(capacity: size.rawValue)
        }
    }

    /// The smallest buffer that holds `bytes`.
    func take(holding bytes: Int) -> ByteBuffer {
        for size in Size.allCases where bytes <= size.rawValue { return take(size) }
        return ByteBuffer(capacity: bytes)
    }

    /// Takes a buffer back; its content is forgotten.
    func give(_ buffer: ByteBuffer) {
        buffer.reset()
        switch buffer.capacity {
        case Size.small.rawValue: small.push(buffer, countMax: Size.small.freeMax)
        case Size.medium.rawValue: medium.push(buffer, countMax: Size.medium.freeMax)
        case Size.large.rawValue: large.push(buffer, countMax: Size.large.freeMax)
        default: break
        }
    }
}
