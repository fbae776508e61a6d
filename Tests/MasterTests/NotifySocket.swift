import CShims
import Glibc
import ShmRing
import Testing

/// A service manager's end of NOTIFY_SOCKET.
final class NotifySocket {
    private let socket: Int32

    init(_ address: SocketAddress) throws {
        socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        let raw = socket
        let result = unsafe address.withSockaddr { unsafe bind(raw, $0, $1) }
        try #require(result == 0, "\(Errno.last)")
    }

    deinit {
        close(socket)
    }

    /// The next datagram, line by line; empty when there is none.
    func receive() -> [String] {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = unsafe recv(socket, &buffer, buffer.count, 0)
        return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self).split(separator: "\n").map(String.init)
    }
}
