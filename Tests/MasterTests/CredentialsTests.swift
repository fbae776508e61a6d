import CShims
import Glibc
import Testing

@testable import Master

@Suite struct CredentialsTests {
    private static var isRoot: Bool { getuid() == 0 }

    private func failure(user: String?, group: String?) -> StartFailure? {
        #expect(throws: StartFailure.self) { try Credentials(user: user, group: group) }
    }

    @Test func nothingAskedForIsNothingToTake() throws {
        #expect(try Credentials(user: nil, group: nil) == nil)
    }

    @Test(.enabled(if: isRoot)) func namesAndNumbersAreLookedUp() throws {
        let byName = try #require(try Credentials(user: "daemon", group: nil))
        #expect(byName.user != 0 && byName.groups.contains(byName.group))
        let byNumber = try #require(try Credentials(user: "\(byName.user)", group: nil))
        #expect(byNumber.user == byName.user && byNumber.group == byName.group)
        let other = try #require(try Credentials(user: "daemon", group: "nogroup"))
        #expect(other.user == byName.user && other.group != byName.group)
        #expect(try #require(try Credentials(user: "54321", group: "54322")).groups == [54322])
    }

    @Test(
        arguments: [
            ("no such user", nil, "no such user"), ("54321", nil, "--group"), (nil, "no such group", "group"),
        ] as [(String?, String?, String)])
    func whatCannotBeFoundIsNamed(user: String?, group: String?, named: String) {
        #expect(failure(user: user, group: group)?.message.contains(named) == true)
    }

    @Test(.enabled(if: !isRoot)) func onlyRootMayBecomeSomebodyElse() {
        #expect(failure(user: "root", group: nil)?.kind == .runTime)
    }

    /// In a process of its own, which says by its status what it found.
    @Test(.enabled(if: isRoot)) func whoGivesRootUpCannotComeBack() throws {
        let credentials = try #require(try Credentials(user: "daemon", group: nil))
        let pid = lb_fork()
        if pid == 0 {
            alarm(20)
            let isDone = (try? credentials.take()) != nil
            let isDaemon = geteuid() == credentials.user && getegid() == credentials.group
            let isRefused = unsafe open("/etc/shadow", O_RDONLY) < 0
            _exit(isDone && isDaemon && isRefused && setuid(0) != 0 ? 0 : 1)
        }
        var status: Int32 = -1
        #expect(unsafe waitpid(pid, &status, 0) == pid)
        #expect(status == 0)
    }
}
