import CShims
import Glibc
import ShmRing

/// Looks names up through the C library. It blocks, so it is called at start only.
/// Unsafe: walks the linked list that getaddrinfo(3) allocates.
enum NameLookup {
    /// All stream addresses of a name, in the resolver's order (RFC 6724).
    /// - Throws: `StartFailure` of kind run time that names the host.
    static func addresses(host: String, port: UInt16) throws(StartFailure) -> [SocketAddress] {
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        unsafe hints.ai_flags = AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>? = nil
        let status = unsafe getaddrinfo(host, String(port), &hints, &list)
        guard status == 0, let first = unsafe list else { throw failure(host, port, status) }
        defer { unsafe freeaddrinfo(first) }
        return unsafe sequence(first: first) { unsafe $0.pointee.ai_next }
            .map { unsafe SocketAddress($0.pointee.ai_addr, length: $0.pointee.ai_addrlen) }
    }

    private static func failure(_ host: String, _ port: UInt16, _ status: Int32) -> StartFailure {
        let reason = status == EAI_SYSTEM ? Errno.last.description : unsafe String(cString: gai_strerror(status))
        return .runTime("cannot resolve the backend \(host):\(port): \(reason); check the name, or use an IP address")
    }
}
