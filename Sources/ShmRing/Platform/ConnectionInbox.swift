import Glibc

/// The way of a client's connection from a worker that drains to its successor: a packet socket pair whose
/// packets are a kind and one descriptor.
///
///     predecessor ──send(descriptor)──► [ packets in the kernel ] ──receive()──► successor
///                  then closes its own                             admits it as if accepted
///
/// Bytes that the client has sent and nobody has read travel along, in the socket. The write end goes to the
/// predecessor with `ControlMessage.drain`, the read end to the successor with its inheritance. What is in the
/// kernel when the last read end closes is lost, so a master that keeps one can give it to the process that
/// replaces a dead successor.
public struct ConnectionInbox: ~Copyable {
    /// A client's connection that waits for its next request, HTTP/1.1, no byte of that request read.
    private static let idleConnection: UInt8 = 1

    private let socket: FileDescriptor

    /// What a read of the inbox brought.
    public enum Reading: ~Copyable {
        case connection(FileDescriptor)
        case nothing
        /// All write ends are closed, and everything was taken.
        case closed
        /// A connection waits, but this process can open no more descriptors; it stays in the inbox.
        case exhausted
    }

    public init(owning rawValue: Int32) {
        socket = FileDescriptor(owning: rawValue)
    }

    public init(_ descriptor: consuming FileDescriptor) {
        socket = descriptor
    }

    /// For epoll.
    public var descriptor: Int32 { socket.rawValue }

    /// Two connected ends as raw descriptors, non-blocking and close-on-exec.
    public static func makePair() throws(Errno) -> (read: Int32, write: Int32) {
        let (read, write) = try PacketSocket.makePair()
        return (read, write)
    }

    /// Sends a connection without waiting.
    /// - Parameter descriptor: Stays open here; close it when it was sent.
    /// - Returns: False when the inbox is full or its reader is gone, and the connection is still the sender's.
    public func send(_ descriptor: Int32) -> Bool {
        PacketSocket.send(socket.rawValue, Self.idleConnection, passing: descriptor)
    }

    /// Takes the next connection. Packets that are none are passed over.
    public func receive() -> Reading {
        while true {
            // A descriptor that does not fit into this process's table would be lost with its packet, so look first.
            var packet = PacketSocket.receive(socket.rawValue, isPeek: true)
            switch packet.arrival {
            case .nothing: return .nothing
            case .closed: return .closed
            case .byte(let kind):
                if packet.isDescriptorLost, !canOpenDescriptor() { return .exhausted }
                PacketSocket.drop(socket.rawValue)
                guard kind == Self.idleConnection, let connection = packet.takeDescriptor() else { continue }
                return .connection(connection)
            }
        }
    }

    /// Tells a full table of descriptors from a packet with too many of them.
    private func canOpenDescriptor() -> Bool {
        let copy = fcntl(socket.rawValue, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { return false }
        close(copy)
        return true
    }
}
