import CShims
import Glibc

/// An error number of the operating system, kept as a value so that hot paths never allocate an error.
public struct Errno: Error, Equatable, Sendable, CustomStringConvertible {
    public let rawValue: Int32

    @inlinable
    public init(_ rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// The calling thread's `errno`, read right after a failed call.
    @inlinable
    public static var last: Errno { Errno(errno) }

    /// The C library's text, for people ("Address already in use").
    public var description: String {
        unsafe String(cString: strerror(rawValue))
    }
}
