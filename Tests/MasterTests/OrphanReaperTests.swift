import CShims
import Glibc
import ShmRing
import Testing

@testable import Master

@Suite(.serialized) struct OrphanReaperTests {
    /// Runs `body` in a process of its own, whose children are known; it says by its result whether all was well.
    private func inProcess(_ body: () -> Bool) -> Bool {
        let pid = lb_fork()
        if pid == 0 {
            alarm(20)
            _exit(body() ? 0 : 1)
        }
        var status: Int32 = -1
        return unsafe waitpid(pid, &status, 0) == pid && status == 0
    }

    private static func startChild() -> Int32 {
        let pid = lb_fork()
        if pid == 0 { _exit(3) }
        return pid
    }

    /// Waits until a child has ended, without reaping it.
    private static func awaitEnd(of pid: Int32) {
        var info = unsafe siginfo_t()
        _ = unsafe waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT)
    }

    private static func isThere(_ pid: Int32) -> Bool { kill(pid, 0) == 0 }

    @Test func strangersAreReaped() {
        #expect(
            inProcess {
                guard let reaper = try? OrphanReaper() else { return false }
                let strangers = (0..<3).map { _ in Self.startChild() }
                strangers.forEach(Self.awaitEnd)
                return reaper.reap { _ in false } == 3 && !strangers.contains(where: Self.isThere)
            })
    }

    @Test func childrenOfItsOwnKeepTheirStatus() {
        #expect(
            inProcess {
                guard let reaper = try? OrphanReaper() else { return false }
                let own = Self.startChild()
                Self.awaitEnd(of: own)
                guard reaper.reap(isOwn: { $0 == own }) == 0 else { return false }
                var status: Int32 = 0
                return unsafe waitpid(own, &status, 0) == own && status == 3 << 8
            })
    }

    @Test func theDescriptorTellsOfAnEnd() {
        #expect(
            inProcess {
                guard let reaper = try? OrphanReaper() else { return false }
                var wait = pollfd(fd: reaper.descriptor, events: Int16(POLLIN), revents: 0)
                guard unsafe poll(&wait, 1, 0) == 0 else { return false }
                _ = Self.startChild()
                guard unsafe poll(&wait, 1, 10_000) == 1, reaper.reap(isOwn: { _ in false }) == 1 else { return false }
                return unsafe poll(&wait, 1, 0) == 0
            })
    }
}
