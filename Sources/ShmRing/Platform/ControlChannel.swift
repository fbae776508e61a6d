import Glibc

/// What travels between the master and a child, one byte a packet.
public enum ControlMessage: UInt8, Sendable {
    /// Child to master: start-up is over, work is being done.
    case ready = 1
    /// Master to child: finish what is there, then exit. With a descriptor: the write end of the successor's
    /// `ConnectionInbox`, for connections that wait between two requests.
    case drain = 2
    /// As `drain`, but first empty the queues of the listeners, to which nothing comes any more.
    case drainSweeping = 3
    /// Master to child: accept from the listener that comes with it as well.
    case listen = 4
    /// Master to child, after `drainSweeping`: nothing is on its way to the listeners any more. What is in their
    /// queues now is the last.
    case sweepOver = 5
}

/// One end of the packet socket pair between the master and one child, non-blocking.
///
/// End of stream on the child's end means that the master is gone, whatever killed it. A message may bring one
/// descriptor along (SCM_RIGHTS). Whoever does not ask for it gets none: it is closed.
public struct ControlChannel: ~Copyable {
    private let socket: FileDescriptor

    /// What a read of the channel brought.
    public enum Reading: Equatable, Sendable {
        case message(ControlMessage)
        case nothing
        case peerGone
    }

    /// A reading together with the descriptor that came along.
    public struct Delivery: ~Copyable {
        public let reading: Reading
        private var descriptor: FileDescriptor?

        fileprivate init(_ reading: Reading, _ descriptor: consuming FileDescriptor?) {
            self.reading = reading
            self.descriptor = descriptor
        }

        /// The descriptor, close-on-exec; nil when there was none or it was taken already.
        public mutating func takeDescriptor() -> FileDescriptor? {
            descriptor.take()
        }
    }

    public init(owning rawValue: Int32) {
        socket = FileDescriptor(owning: rawValue)
    }

    /// For epoll.
    public var descriptor: Int32 { socket.rawValue }

    /// Two connected ends as raw descriptors: the first stays with the master, the second goes to the child.
    public static func makePair() throws(Errno) -> (master: Int32, child: Int32) {
        try PacketSocket.makePair()
    }

    /// Sends without waiting. A peer that is gone or does not read is noticed elsewhere.
    /// - Parameter descriptor: Goes along; stays open here.
    /// - Returns: Whether the message is on its way.
    @discardableResult
    public func send(_ message: ControlMessage, passing descriptor: Int32? = nil) -> Bool {
        PacketSocket.send(socket.rawValue, message.rawValue, passing: descriptor)
    }

    /// Takes one message if there is one. Unknown bytes are passed over, descriptors closed.
    public func receive() -> Reading {
        receiveDelivery().reading
    }

    /// Takes one message if there is one, with its descriptor. Unknown bytes are passed over.
    public func receiveDelivery() -> Delivery {
        while true {
            var packet = PacketSocket.receive(socket.rawValue)
            switch packet.arrival {
            case .nothing: return Delivery(.nothing, nil)
            case .closed: return Delivery(.peerGone, nil)
            case .byte(let byte):
                guard let message = ControlMessage(rawValue: byte) else { continue }
                return Delivery(.message(message), packet.takeDescriptor())
            }
        }
    }
}
