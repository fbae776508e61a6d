import CShims
import Glibc
import ShmRing

/// Who the workers and the exporter run as, when the master is root: found before the first fork, taken on by
/// each child right after it.
///
/// The master stays who it is. It has to open listeners and files again with a reload, and to execve in place;
/// it reads nothing from the network.
/// Unsafe: the user database fills C structures.
struct Credentials: Equatable, Sendable {
    let user: uid_t
    let group: gid_t
    /// All groups of the user, `group` among them.
    let groups: [gid_t]
    /// As it was asked for.
    let name: String

    /// Looks a user and a group up (getpwnam(3), getgrnam(3)).
    /// - Parameters:
    ///   - user: A name or a number; nil leaves the user.
    ///   - group: A name or a number; nil takes the user's own.
    /// - Returns: Nil when neither was asked for.
    /// - Throws: What cannot be found, or cannot be taken on because this process is not root.
    init?(user: String?, group: String?) throws(StartFailure) {
        guard user != nil || group != nil else { return nil }
        let account = try user.map(Self.account)
        let wanted = try group.map(Self.groupNumber)
        guard let number = wanted ?? account?.group else {
            throw .usage("--user \(user ?? "") is a number without an account; add --group")
        }
        self.user = account?.user ?? getuid()
        self.group = number
        groups = account?.name.map { Self.groups(of: $0, and: number) } ?? [number]
        name = user ?? group ?? ""
        guard getuid() == 0 || (self.user == getuid() && self.group == getgid()) else {
            throw .runTime("cannot run as \(name): only root can; start as root, or leave --user and --group out")
        }
    }

    /// In a child: becomes that user for good.
    /// - Throws: What the kernel refused; the child must not go on then.
    func take() throws(Errno) {
        guard getuid() == 0 else { return }
        guard unsafe setgroups(groups.count, groups) == 0, lb_set_group(group) == 0,
            lb_set_user(user) == 0
        else { throw Errno.last }
        // Believes nobody: whoever can become root again has not given it up.
        guard user == 0 || (setuid(0) != 0 && geteuid() == user && getegid() == group) else { throw Errno(EPERM) }
    }

    private struct Account {
        let user: uid_t
        let group: gid_t?
        /// Nil for a number that no account has.
        let name: String?
    }

    private static func account(_ text: String) throws(StartFailure) -> Account {
        let number = WholeNumber.parse(text[...]).flatMap { uid_t(exactly: $0) }
        let entry = unsafe number.map { unsafe getpwuid($0) } ?? getpwnam(text)
        if let entry = unsafe entry {
            return unsafe Account(
                user: entry.pointee.pw_uid, group: entry.pointee.pw_gid, name: String(cString: entry.pointee.pw_name))
        }
        guard let number else { throw .usage("there is no user \(text); choose another --user") }
        return Account(user: number, group: nil, name: nil)
    }

    private static func groupNumber(_ text: String) throws(StartFailure) -> gid_t {
        if let number = WholeNumber.parse(text[...]).flatMap({ gid_t(exactly: $0) }) { return number }
        guard let entry = unsafe getgrnam(text) else {
            throw .usage("there is no group \(text); choose another --group")
        }
        return unsafe entry.pointee.gr_gid
    }

    private static func groups(of name: String, and group: gid_t) -> [gid_t] {
        var count: Int32 = 1024
        var groups = [gid_t](repeating: 0, count: Int(count))
        guard unsafe getgrouplist(name, group, &groups, &count) >= 0 else { return [group] }
        return Array(groups.prefix(Int(count)))
    }
}
