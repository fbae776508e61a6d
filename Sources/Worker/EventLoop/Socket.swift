import CShims
import Glibc
import ShmRing

/// Socket calls that a worker makes, each one system call, none of them blocking.
enum Socket {
    enum AcceptOutcome {
        case accepted(Int32, SocketAddress)
        /// Nothing waits.
        case none
        /// The connection died in the queue; try the next.
        case aborted
        /// No descriptors or memory left: stop accepting for a while.
        case exhausted(Errno)
    }

    static func accept(_ listener: Int32) -> AcceptOutcome {
        var accepted: Int32 = -1
        let peer = unsafe SocketAddress { address, length in
            unsafe accepted = lb_accept4(listener, address, length)
        }
        if accepted >= 0 { return .accepted(accepted, peer) }
        switch errno {
        case EAGAIN: return .none
        case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .exhausted(Errno.last)
        default: return .aborted
        }
    }

    /// Who is on the other side; nil when nobody is any more.
    static func peerAddress(_ descriptor: Int32) -> SocketAddress? {
        var result: Int32 = -1
        let peer = unsafe SocketAddress { address, length in
            result = unsafe getpeername(descriptor, address, length)
        }
        return result == 0 ? peer : nil
    }

    /// The port that a socket is bound to, nil for a Unix socket.
    static func localPort(_ descriptor: Int32) -> UInt16? {
        let address = unsafe SocketAddress { _ = unsafe getsockname(descriptor, $0, $1) }
        return address.port
    }

    /// Bytes that a TCP connection has carried, nil where nobody counts.
    static func totals(_ descriptor: Int32) -> (sent: UInt64, received: UInt64)? {
        var sent: UInt64 = 0
        var received: UInt64 = 0
        guard unsafe lb_tcp_totals(descriptor, &sent, &received) == 0 else { return nil }
        return (sent, received)
    }

    enum ConnectOutcome {
        case connected(Int32)
        case inProgress(Int32)
        case failed(Errno)
    }

    /// Starts a connection. Small writes go out at once (TCP_NODELAY).
    static func connect(_ address: SocketAddress) -> ConnectOutcome {
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(address.family, type, 0)
        guard descriptor >= 0 else { return .failed(Errno.last) }
        if address.family != AF_UNIX { disableNagle(descriptor) }
        let result = unsafe address.withSockaddr { unsafe Glibc.connect(descriptor, $0, $1) }
        if result == 0 { return .connected(descriptor) }
        if errno == EINPROGRESS { return .inProgress(descriptor) }
        let error = Errno.last
        close(descriptor)
        return .failed(error)
    }

    /// The result of a connect that was in progress.
    static func pendingError(_ descriptor: Int32) -> Errno? {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 else { return Errno.last }
        return code == 0 ? nil : Errno(code)
    }

    static func disableNagle(_ descriptor: Int32) {
        var on: Int32 = 1
        _ = unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    /// Makes close(2) send RST, so that the peer sees a broken connection and not a clean end.
    static func resetOnClose(_ descriptor: Int32) {
        var value = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    /// Sends FIN; reading goes on.
    static func finishSending(_ descriptor: Int32) {
        _ = shutdown(descriptor, Int32(SHUT_WR))
    }
}
