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
    private final class FreeList {
        private let countMax: Int
        private let bytes: Int
        private let free: ObjectList<ByteBuffer>

        init(_ size: Size) {
            countMax = size.freeMax
            bytes = size.rawValue
            free = ObjectList(capacity: size.freeMax)
        }

        func take() -> ByteBuffer { free.popLast() ?? ByteBuffer(capacity: bytes) }

        func give(_ buffer: consuming ByteBuffer) {
            guard free.count < countMax else { return }
            free.append(buffer)
        }
    }

    private let small = FreeList(.small)
    private let medium = FreeList(.medium)
    private let large = FreeList(.large)

    /// An empty buffer.
    func take(_ size: Size) -> ByteBuffer {
        switch size {
        case .small: small.take()
        case .medium: medium.take()
        case .large: large.take()
        case .huge: ByteBuffer(capacity: size.rawValue)
        }
    }

    /// The smallest buffer that holds `bytes`.
    func take(holding bytes: Int) -> ByteBuffer {
        if bytes <= Size.small.rawValue { return small.take() }
        if bytes <= Size.medium.rawValue { return medium.take() }
        if bytes <= Size.large.rawValue { return large.take() }
        return ByteBuffer(capacity: max(bytes, Size.huge.rawValue))
    }

    /// Takes a buffer back; its content is forgotten.
    func give(_ buffer: consuming ByteBuffer) {
        buffer.reset()
        switch buffer.capacity {
        case Size.small.rawValue: small.give(buffer)
        case Size.medium.rawValue: medium.give(buffer)
        case Size.large.rawValue: large.give(buffer)
        default: break
        }
    }
}
