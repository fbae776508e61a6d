import CShims
import Glibc
import ShmRing

/// What an event belongs to. The generation makes events of a closed connection harmless: by the time
/// they are looked at, the slot may belong to somebody else.
struct EventToken: Equatable {
    enum Kind: UInt8 {
        case listener, control, signal, downstream, upstream, inbox, successor
    }

    var kind: Kind
    var slot: Int
    var generation: UInt32

    /// 8 bits of kind, 24 of generation, 32 of slot.
    var bits: UInt64 {
        UInt64(kind.rawValue) << 56 | UInt64(generation & 0xFF_FFFF) << 32 | UInt64(UInt32(slot))
    }

    init(kind: Kind, slot: Int, generation: UInt32 = 0) {
        self.kind = kind
        self.slot = slot
        self.generation = generation & 0xFF_FFFF
    }

    init?(bits: UInt64) {
        guard let kind = Kind(rawValue: UInt8(bits >> 56)) else { return nil }
        self.kind = kind
        generation = UInt32(truncatingIfNeeded: bits >> 32) & 0xFF_FFFF
        slot = Int(UInt32(truncatingIfNeeded: bits))
    }
}

/// What happened to a descriptor.
struct Readiness: Equatable {
    var isReadable: Bool
    var isWritable: Bool
    /// The peer will send no more.
    var peerFinished: Bool
    /// Both directions are dead.
    var isBroken: Bool
    /// The connection failed, as opposed to having ended on both sides.
    var hasError: Bool
}

/// Owns an epoll instance and the space for its events.
///
/// Connections are registered once, edge-triggered, for everything: no epoll_ctl on the request path.
@safe
final class Poller {
    private let descriptor: FileDescriptor
    private let events: UnsafeMutablePointer<epoll_event>
    private static let eventsMax = 512

    init() throws(Errno) {
        let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw Errno.last }
        descriptor = FileDescriptor(owning: raw)
        unsafe events = .allocate(capacity: Self.eventsMax)
    }

    deinit {
        unsafe events.deallocate()
    }

    /// Registers a connection for every edge of both directions.
    func addConnection(_ fd: Int32, token: EventToken) throws(Errno) {
        let interest = UInt32(LB_EPOLLIN | LB_EPOLLOUT | LB_EPOLLRDHUP) | lb_epollet
        guard lb_epoll_control(descriptor.rawValue, Int32(EPOLL_CTL_ADD), fd, interest, token.bits) == 0 else {
            throw Errno.last
        }
    }

    /// Registers a descriptor to be told of as long as it is readable.
    func addReadable(_ fd: Int32, token: EventToken) throws(Errno) {
        let interest = UInt32(LB_EPOLLIN)
        guard lb_epoll_control(descriptor.rawValue, Int32(EPOLL_CTL_ADD), fd, interest, token.bits) == 0 else {
            throw Errno.last
        }
    }

    /// Forgets a descriptor that stays open.
    func remove(_ fd: Int32) {
        _ = lb_epoll_control(descriptor.rawValue, Int32(EPOLL_CTL_DEL), fd, 0, 0)
    }

    /// Waits for events.
    /// - Parameter timeoutMs: Milliseconds, -1 without end.
    /// - Returns: How many can be asked for with `event(at:)`.
    func wait(timeoutMs: Int32) -> Int {
        let count = unsafe epoll_wait(descriptor.rawValue, events, Int32(Self.eventsMax), timeoutMs)
        if count >= 0 { return Int(count) }
        precondition(errno == EINTR, "epoll_wait failed: \(Errno.last)")
        return 0
    }

    /// An event of the last `wait`. Nil when its token is not one of ours.
    func event(at index: Int) -> (token: EventToken, readiness: Readiness)? {
        precondition(index >= 0 && index < Self.eventsMax)
        guard let token = unsafe EventToken(bits: lb_epoll_token_at(events, index)) else { return nil }
        let bits = unsafe lb_epoll_events_at(events, index)
        func has(_ flags: UInt32) -> Bool { bits & flags != 0 }
        let isBroken = has(UInt32(LB_EPOLLERR) | UInt32(LB_EPOLLHUP))
        return (
            token,
            Readiness(
                isReadable: has(UInt32(LB_EPOLLIN)) || isBroken, isWritable: has(UInt32(LB_EPOLLOUT)),
                peerFinished: has(UInt32(LB_EPOLLRDHUP)), isBroken: isBroken, hasError: has(UInt32(LB_EPOLLERR)))
        )
    }
}
