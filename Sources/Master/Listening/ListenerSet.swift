import CShims
import Glibc
import ShmRing

/// The listening sockets of one address, one for each worker slot that ever was, all on one port.
///
/// Each is SO_REUSEPORT, so the kernel spreads clients over them; each has its own queue of connections,
/// which is why none is closed while the address is served: its queue would be lost. A worker that dies leaves
/// its queue to its successor; generations share the sockets; with fewer workers than sockets, some accept
/// from several. Only the master makes one; children inherit the descriptors.
/// Unsafe: socket options and addresses are passed as pointers.
final class ListenerSet {
    /// As it was asked for: port 0 stands for whichever port it got.
    let wanted: ListenAddress
    /// Where clients are accepted, with the real port.
    let address: ListenAddress
    /// Whether a service manager has opened the sockets: then there are no more of them, and each is everybody's.
    let isInherited: Bool
    private var sockets: [Listener]

    /// The kernel cuts it to net.core.somaxconn.
    private static let backlog: Int32 = 65535

    /// Opens `count` sockets, listening.
    /// - Throws: `StartFailure` of kind run time that names the address.
    init(_ wanted: ListenAddress, count: Int) throws(StartFailure) {
        let probe = try Listener.bound(to: wanted, isShared: false)
        let address = wanted.with(port: probe.port)
        // The probe holds the port until the others have it: without SO_REUSEPORT but not listening, it keeps
        // strangers out and, by SO_REUSEADDR, lets these in.
        defer { withExtendedLifetime(probe) {} }
        self.wanted = wanted
        self.address = address
        isInherited = false
        sockets = try (0..<count).map { (_) throws(StartFailure) in try Self.listening(at: address) }
    }

    /// Takes over sockets that listen already.
    /// - Parameter isInherited: As the set that had them said.
    init(wanted: ListenAddress, adopting descriptors: [Int32], isInherited: Bool = false) {
        self.wanted = wanted
        self.isInherited = isInherited
        sockets = descriptors.map(Listener.init(adopting:))
        address = wanted.with(port: sockets.first?.port ?? wanted.port)
    }

    /// Opens more sockets where workers have become more.
    /// - Throws: `StartFailure` of kind run time that names the address; the set is as it was then.
    func grow(to count: Int) throws(StartFailure) {
        guard count > sockets.count, !isInherited else { return }
        sockets += try (sockets.count..<count).map { (_) throws(StartFailure) in try Self.listening(at: address) }
    }

    private static func listening(at address: ListenAddress) throws(StartFailure) -> Listener {
        let listener = try Listener.bound(to: address, isShared: true)
        try listener.listen(backlog: backlog, at: address)
        return listener
    }

    /// Finds out whether `init` would succeed, and leaves nothing behind.
    /// - Returns: A warning when the port is in use.
    static func probe(_ wanted: ListenAddress) throws(StartFailure) -> [String] {
        do throws(StartFailure) {
            _ = try Listener.bound(to: wanted, isShared: false)
            return []
        } catch {
            guard error.isAddressInUse else { throw error }
            return [error.message]
        }
    }

    /// All sockets, in the order they were made.
    var descriptors: [Int32] { sockets.map(\.descriptor) }

    /// The sockets that one of `count` workers accepts from: every socket has somebody, every worker has one.
    func descriptors(worker slot: Int, of count: Int) -> [Int32] {
        guard !isInherited else { return descriptors }
        guard sockets.count >= count else { return [sockets[slot % sockets.count].descriptor] }
        return stride(from: slot, to: sockets.count, by: count).map { sockets[$0].descriptor }
    }

    /// Lets no new connection into the queues; those that are in them, or on their way, can still be accepted.
    func close() { sockets.forEach { $0.refuseConnections() } }

    /// Whether a client is in the middle of TCP's handshake with any of the sockets: then it is in no queue yet. Nil
    /// when the kernel does not say.
    func hasOpenHandshakes() -> Bool? { sockets.first?.hasOpenHandshakes() ?? false }

    /// Undoes `close`.
    func reopen() { sockets.forEach { $0.admitConnections() } }
}

/// One bound socket.
private final class Listener {
    private let socket: FileDescriptor

    var descriptor: Int32 { socket.rawValue }

    init(adopting descriptor: Int32) {
        socket = FileDescriptor(owning: descriptor)
    }

    private init(family: Int32) throws(Errno) {
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let raw = Glibc.socket(family, type, 0)
        guard raw >= 0 else { throw Errno.last }
        socket = FileDescriptor(owning: raw)
    }

    /// Binds without listening.
    /// - Parameter isShared: Whether further sockets of this user may have the same port. Where it is false,
    ///   a port that anybody else listens on is an error, even if they share it: two balancers on one port
    ///   would each get half of the clients.
    static func bound(to wanted: ListenAddress, isShared: Bool) throws(StartFailure) -> Listener {
        do throws(Errno) {
            switch wanted {
            case .one(let address): return try bound(to: address, isShared: isShared)
            case .all(let port): return try boundToAll(port: port, isShared: isShared)
            }
        } catch {
            throw failure(wanted, error)
        }
    }

    /// One IPv6 socket takes IPv4 clients as well (RFC 3493 §5.3); without IPv6 it is an IPv4 socket.
    private static func boundToAll(port: UInt16, isShared: Bool) throws(Errno) -> Listener {
        do throws(Errno) {
            return try bound(to: SocketAddress(ip: "::", port: port)!, isShared: isShared)
        } catch {
            guard [EAFNOSUPPORT, EADDRNOTAVAIL].contains(error.rawValue) else { throw error }
            return try bound(to: SocketAddress(ip: "0.0.0.0", port: port)!, isShared: isShared)
        }
    }

    private static func bound(to address: SocketAddress, isShared: Bool) throws(Errno) -> Listener {
        let listener = try Listener(family: address.family)
        // A port whose old connections linger in TIME_WAIT is free.
        try listener.set(SO_REUSEADDR, level: SOL_SOCKET, 1)
        if isShared { try listener.set(SO_REUSEPORT, level: SOL_SOCKET, 1) }
        if address.family == AF_INET6 { try listener.set(IPV6_V6ONLY, level: Int32(IPPROTO_IPV6), 0) }
        let result = unsafe address.withSockaddr { unsafe bind(listener.descriptor, $0, $1) }
        guard result == 0 else { throw Errno.last }
        return listener
    }

    /// Drops segments that open a connection: the client tries again, as if the first had been lost. Closing the
    /// socket would reset what is in its queue.
    func refuseConnections() { _ = lb_drop_new_connections(descriptor) }

    /// Counts for all sockets of this family and port, which nothing tells apart during a handshake.
    func hasOpenHandshakes() -> Bool? {
        let address = boundAddress
        guard let port = address.port else { return false }
        let answer = lb_has_open_handshakes(address.family, port)
        return answer < 0 ? nil : answer > 0
    }

    func admitConnections() { _ = lb_keep_new_connections(descriptor) }

    func listen(backlog: Int32, at address: ListenAddress) throws(StartFailure) {
        guard Glibc.listen(descriptor, backlog) == 0 else { throw Self.failure(address, Errno.last) }
    }

    /// The port it is bound to, in host order.
    var port: UInt16 { boundAddress.port ?? 0 }

    private var boundAddress: SocketAddress {
        let raw = descriptor
        return unsafe SocketAddress { _ = unsafe getsockname(raw, $0, $1) }
    }

    private func set(_ option: Int32, level: Int32, _ value: Int32) throws(Errno) {
        var value = value
        let size = socklen_t(MemoryLayout<Int32>.size)
        guard unsafe setsockopt(descriptor, level, option, &value, size) == 0 else { throw Errno.last }
    }

    private static func failure(_ address: ListenAddress, _ error: Errno) -> StartFailure {
        let mend =
            switch error.rawValue {
            case EADDRINUSE: "stop what listens there or choose another --port"
            case EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher --port"
            case EADDRNOTAVAIL: "no interface has this address; choose another --address"
            case EMFILE, ENFILE: "raise the limit of open files (ulimit -n) or use fewer --workers"
            default: "choose another --port or --address"
            }
        var failure = StartFailure.runTime("cannot listen on \(address): \(error); \(mend)")
        failure.isAddressInUse = error.rawValue == EADDRINUSE
        return failure
    }
}
