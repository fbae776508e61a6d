import CShims
import Glibc
import ShmRing

/// A level-triggered epoll for the few descriptors of the master.
/// Unsafe: the kernel fills an array of its own records.
@safe
struct Poller: ~Copyable {
    private static let eventsMax = 64
    private let epoll: FileDescriptor

    init() throws(Errno) {
        let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw Errno.last }
        epoll = FileDescriptor(owning: raw)
    }

    /// Watches for input and hang-up.
    /// - Parameter token: What `wait` returns for it.
    func watch(_ descriptor: Int32, token: UInt64) throws(Errno) {
        let result = lb_epoll_control(
            epoll.rawValue, EPOLL_CTL_ADD, descriptor, UInt32(LB_EPOLLIN), token)
        guard result == 0 else { throw Errno.last }
    }

    /// Stops watching a descriptor that is still open.
    func ignore(_ descriptor: Int32) {
        _ = lb_epoll_control(epoll.rawValue, EPOLL_CTL_DEL, descriptor, 0, 0)
    }

    /// Waits until something is readable.
    /// - Parameter timeoutMs: -1 waits for ever.
    /// - Returns: Tokens; empty after the timeout or an interruption.
    func wait(timeoutMs: Int32) -> [UInt64] {
        unsafe withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: Self.eventsMax) { events in
            let count = unsafe epoll_wait(epoll.rawValue, events.baseAddress!, Int32(Self.eventsMax), timeoutMs)
            return (0..<max(0, Int(count))).map { unsafe lb_epoll_token_at(events.baseAddress!, $0) }
        }
    }
}
