import CShims
import Glibc

/// What travels between the master and a child, one byte a packet.
public enum ControlMessage: UInt8, Sendable {
    /// Child to master: start-up is over, work is being done.
    case ready = 1
    /// Master to child: finish what is there, then exit.
    case drain = 2
}

/// One end of the packet socket pair between the master and one child, non-blocking.
///
/// End of stream on the child's end means that the master is gone, whatever killed it.
public struct ControlChannel: ~Copyable {
    private let socket: FileDescriptor

    /// What a read of the channel brought.
    public enum Reading: Equatable, Sendable {
        case message(ControlMessage)
        case nothing
        case peerGone
    }

    public init(owning rawValue: Int32) {
        socket = FileDescriptor(owning: rawValue)
    }

    /// For epoll.
    public var descriptor: Int32 { socket.rawValue }

    /// Two connected ends as raw descriptors: the first stays with the master, the second goes to the child.
    public static func makePair() throws(Errno) -> (master: Int32, child: Int32) {
        var pair: [Int32] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard unsafe socketpair(AF_UNIX, type, 0, &pair) == 0 else { throw Errno.last }
        return (pair[0], pair[1])
    }

    /// Sends without waiting. A peer that is gone or does not read is noticed elsewhere.
    public func send(_ message: ControlMessage) {
        var byte = message.rawValue
        _ = unsafe Glibc.send(socket.rawValue, &byte, 1, Int32(MSG_NOSIGNAL))
    }

    /// Takes one message if there is one. Unknown bytes are passed over.
    public func receive() -> Reading {
        while true {
            var byte: UInt8 = 0
            let count = unsafe recv(socket.rawValue, &byte, 1, 0)
            if count == 0 { return .peerGone }
            if count < 0 {
                if errno == EINTR { continue }
                return errno == EAGAIN ? .nothing : .peerGone
            }
            if let message = ControlMessage(rawValue: byte) { return .message(message) }
        }
    }
}
