import CShims
import Glibc

/// Owns one descriptor and closes it exactly once.
@frozen
public struct FileDescriptor: ~Copyable {
    /// The number the kernel knows it by.
    public let rawValue: Int32

    /// Takes ownership of `rawValue`, which must be open.
    @inlinable
    public init(owning rawValue: Int32) {
        precondition(rawValue >= 0, "not a descriptor: \(rawValue)")
        self.rawValue = rawValue
    }

    @inlinable
    deinit {
        close(rawValue)
    }

    /// Gives the descriptor away without closing it.
    @inlinable
    public consuming func release() -> Int32 {
        let raw = rawValue
        discard self
        return raw
    }

    /// A new eventfd, non-blocking and close-on-exec.
    public static func eventCounter() throws(Errno) -> FileDescriptor {
        let fd = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
        guard fd >= 0 else { throw Errno.last }
        return FileDescriptor(owning: fd)
    }
}

/// The result of one read or write on a non-blocking descriptor.
public enum IOResult: Equatable, Sendable {
    case bytes(Int)
    case wouldBlock
    case endOfStream
    case failed(Errno)
}
