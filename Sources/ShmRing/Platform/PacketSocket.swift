import CShims
import Glibc

/// Packets of one byte with at most one descriptor beside it, over a SOCK_SEQPACKET pair: what control channels
/// and inboxes have in common.
/// Unsafe: passes addresses of a byte and of results to system calls.
enum PacketSocket {
    /// Two connected ends, non-blocking and close-on-exec.
    static func makePair() throws(Errno) -> (Int32, Int32) {
        var pair: [Int32] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard unsafe socketpair(AF_UNIX, type, 0, &pair) == 0 else { throw Errno.last }
        return (pair[0], pair[1])
    }

    /// What one read brought.
    enum Arrival: Equatable {
        case byte(UInt8)
        case nothing
        /// End of stream, or a socket that can bring nothing any more.
        case closed
    }

    struct Packet: ~Copyable {
        let arrival: Arrival
        private var descriptor: FileDescriptor?
        /// A descriptor was sent, but this process could not take it: the table of descriptors is full, or there
        /// were several.
        let isDescriptorLost: Bool

        fileprivate init(_ arrival: Arrival, _ descriptor: consuming FileDescriptor? = nil, isLost: Bool = false) {
            self.arrival = arrival
            self.descriptor = descriptor
            isDescriptorLost = isLost
        }

        mutating func takeDescriptor() -> FileDescriptor? {
            descriptor.take()
        }
    }

    /// - Returns: False when the packet does not fit or nobody is there to get it.
    static func send(_ socket: Int32, _ byte: UInt8, passing descriptor: Int32?) -> Bool {
        var byte = byte
        while true {
            if unsafe lb_send_packet(socket, &byte, 1, descriptor ?? -1) == 1 { return true }
            guard errno == EINTR else { return false }
        }
    }

    /// Takes one packet if there is one.
    /// - Parameter isPeek: Leaves it there; a descriptor that comes along is another one for the same file.
    static func receive(_ socket: Int32, isPeek: Bool = false) -> Packet {
        while true {
            var byte: UInt8 = 0
            var raw: Int32 = -1
            var passed = LB_PASSED_NOTHING
            let flags = isPeek ? Int32(MSG_PEEK) : 0
            let count = unsafe lb_receive_packet(socket, &byte, 1, flags, &raw, &passed)
            if count < 0 {
                if errno == EINTR { continue }
                return Packet(errno == EAGAIN ? .nothing : .closed)
            }
            let descriptor = raw >= 0 ? FileDescriptor(owning: raw) : nil
            guard count > 0 else { return Packet(.closed) }
            return Packet(.byte(byte), descriptor, isLost: passed == LB_PASSED_LOST)
        }
    }

    /// Throws one packet away, with what came beside it.
    static func drop(_ socket: Int32) {
        var byte: UInt8 = 0
        while unsafe recv(socket, &byte, 1, Int32(MSG_DONTWAIT)) < 0, errno == EINTR {}
    }
}
