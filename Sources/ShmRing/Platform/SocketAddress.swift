import CShims
import Glibc

/// An IPv4, IPv6 or Unix socket address in the kernel's form, with its text.
///
/// Unsafe: reinterprets `sockaddr_storage` as the family's own structure, after checking the family.
public struct SocketAddress: Sendable, Equatable, CustomStringConvertible {
    private var storage: sockaddr_storage
    private var length: socklen_t

    /// An address of the given numbers.
    /// - Parameters:
    ///   - ip: "192.0.2.1" or "2001:db8::1", without brackets.
    ///   - port: 0 to 65535 in host order.
    /// - Returns: Nil when `ip` is neither.
    public init?(ip: String, port: UInt16) {
        storage = sockaddr_storage()
        length = 0
        if parseIPv4(ip, port: port) || parseIPv6(ip, port: port) { return }
        return nil
    }

    /// A Unix stream socket.
    /// - Parameter path: A file path of at most 107 bytes.
    /// - Returns: Nil when the path is empty or too long.
    public init?(unixPath path: String) {
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: sockaddr_un().sun_path), !bytes.contains(0)
        else { return nil }
        storage = sockaddr_storage()
        length = socklen_t(MemoryLayout<sockaddr_un>.size)
        unsafe withUnsafeMutableBytes(of: &storage) { raw in
            unsafe raw.storeBytes(of: sa_family_t(AF_UNIX), as: sa_family_t.self)
            let offset = MemoryLayout<sockaddr_un>.offset(of: \.sun_path)!
            for (index, byte) in bytes.enumerated() { unsafe raw[offset + index] = byte }
        }
    }

    /// A Unix socket in the abstract namespace (unix(7)), which no file stands for.
    /// - Parameter name: At most 107 bytes.
    public init?(abstractName name: String) {
        let bytes = Array(name.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: sockaddr_un().sun_path) else { return nil }
        storage = sockaddr_storage()
        let offset = MemoryLayout<sockaddr_un>.offset(of: \.sun_path)!
        // The name is as long as the address says, and has a zero in front of it.
        length = socklen_t(offset + 1 + bytes.count)
        unsafe withUnsafeMutableBytes(of: &storage) { raw in
            unsafe raw.storeBytes(of: sa_family_t(AF_UNIX), as: sa_family_t.self)
            for (index, byte) in bytes.enumerated() { unsafe raw[offset + 1 + index] = byte }
        }
    }

    /// Copies what the kernel or the resolver filled in.
    public init(_ address: UnsafePointer<sockaddr>, length: socklen_t) {
        precondition(length <= MemoryLayout<sockaddr_storage>.size)
        storage = sockaddr_storage()
        self.length = length
        unsafe withUnsafeMutableBytes(of: &storage) { raw in
            unsafe raw.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Int(length)))
        }
    }

    /// Lets a system call fill an address in.
    public init<E: Error>(
        filledBy body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) throws(E) -> Void
    ) throws(E) {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try unsafe withUnsafeMutableBytes(of: &storage) { (raw) throws(E) in
            try unsafe body(raw.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
        }
        self.storage = storage
        self.length = length
    }

    /// Calls `body` with the address as system calls want it.
    public func withSockaddr<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        unsafe withUnsafeBytes(of: storage) { raw in
            unsafe body(raw.baseAddress!.assumingMemoryBound(to: sockaddr.self), length)
        }
    }

    /// AF_INET, AF_INET6 or AF_UNIX.
    public var family: Int32 { Int32(storage.ss_family) }

    /// The port in host order; nil for a Unix socket.
    public var port: UInt16? {
        switch family {
        case AF_INET: UInt16(bigEndian: view(as: sockaddr_in.self).sin_port)
        case AF_INET6: UInt16(bigEndian: view(as: sockaddr_in6.self).sin6_port)
        default: nil
        }
    }

    /// The IP as text; an IPv4 address that arrived on an IPv6 socket (::ffff:a.b.c.d) as the IPv4 it is.
    /// For a Unix socket, its path.
    public var ip: String {
        switch family {
        case AF_INET:
            return text(of: view(as: sockaddr_in.self).sin_addr, family: AF_INET)
        case AF_INET6:
            let full = text(of: view(as: sockaddr_in6.self).sin6_addr, family: AF_INET6)
            return full.hasPrefix("::ffff:") && full.contains(".") ? String(full.dropFirst(7)) : full
        default:
            return unixPath
        }
    }

    /// `host:port`, `[host]:port` or `unix:/path`.
    public var description: String {
        guard let port else { return "unix:\(unixPath)" }
        return ip.contains(":") ? "[\(ip)]:\(port)" : "\(ip):\(port)"
    }

    public static func == (left: SocketAddress, right: SocketAddress) -> Bool {
        left.description == right.description
    }

    private var unixPath: String {
        unsafe withUnsafeBytes(of: storage) { raw in
            let start = MemoryLayout<sockaddr_un>.offset(of: \.sun_path)!
            let path = unsafe raw[min(start, Int(length))..<min(Int(length), MemoryLayout<sockaddr_un>.size)]
            return unsafe String(decoding: path.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    private func view<T>(as type: T.Type) -> T {
        unsafe withUnsafeBytes(of: storage) { unsafe $0.load(as: type) }
    }

    private func text<A>(of address: A, family: Int32) -> String {
        var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        let converted = unsafe withUnsafeBytes(of: address) { raw in
            unsafe inet_ntop(family, raw.baseAddress!, &buffer, socklen_t(buffer.count)) != nil
        }
        guard converted else { return "?" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private mutating func parseIPv4(_ ip: String, port: UInt16) -> Bool {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard unsafe inet_pton(AF_INET, ip, &address.sin_addr) == 1 else { return false }
        store(address)
        return true
    }

    private mutating func parseIPv6(_ ip: String, port: UInt16) -> Bool {
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        guard unsafe inet_pton(AF_INET6, ip, &address.sin6_addr) == 1 else { return false }
        store(address)
        return true
    }

    private mutating func store<T>(_ address: T) {
        length = socklen_t(MemoryLayout<T>.size)
        unsafe withUnsafeMutableBytes(of: &storage) { unsafe $0.storeBytes(of: address, as: T.self) }
    }
}
