import CShims
import Glibc
import ShmRing

/// Reaps children that this process did not start: as PID 1 of a container, or as a subreaper, it inherits
/// everybody whose parent is gone, and those that nobody reaps stay as zombies until the process table is full.
///
/// It must not take the end of a child of its own, which its pidfd is about to tell: it looks who has ended
/// without reaping (WNOWAIT) and stops at the first child of its own. That one is reaped by its owner in the same turn
/// of the loop or the next, and its SIGCHLD wakes this one for what stands behind it.
///
/// How to use it: open it before the first fork, watch `descriptor`, and call `reap` when it is readable and
/// after each child of its own that was reaped.
/// Unsafe: signal sets and records are passed as pointers.
final class OrphanReaper {
    private let source: FileDescriptor

    /// For epoll: readable when some child has ended.
    var descriptor: Int32 { source.rawValue }

    /// True when orphans come to this process (PID 1, or PR_SET_CHILD_SUBREAPER).
    static var isNeeded: Bool { getpid() == 1 || lb_is_subreaper() != 0 }

    /// Blocks SIGCHLD, which means nothing to children: by default it is ignored.
    init() throws(Errno) {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        unsafe sigaddset(&set, SIGCHLD)
        guard unsafe sigprocmask(SIG_BLOCK, &set, nil) == 0 else { throw Errno.last }
        let raw = unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK) | Int32(SFD_CLOEXEC))
        guard raw >= 0 else { throw Errno.last }
        source = FileDescriptor(owning: raw)
    }

    /// Reaps those that have ended, up to the first child of the process's own.
    /// - Parameter isOwn: Whether somebody else looks after this pid.
    /// - Returns: How many were reaped.
    func reap(isOwn: (_ pid: Int32) -> Bool) -> Int {
        takeSignals()
        var count = 0
        while true {
            let pid = lb_peek_ended_child()
            guard pid > 0, !isOwn(pid) else { return count }
            guard waitpid(pid, nil, Int32(WNOHANG)) == pid else { return count }
            count += 1
        }
    }

    private func takeSignals() {
        var info = signalfd_siginfo()
        while unsafe read(source.rawValue, &info, MemoryLayout<signalfd_siginfo>.size) > 0 {}
    }
}
