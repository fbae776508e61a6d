import CShims
import Glibc
import ShmRing

/// The signals that are meant for the master, read from a descriptor instead of interrupting it.
///
/// They are blocked from before the first fork to the master's end, so none is lost and none hits a child
/// that is not set up yet. A child undoes that with `leaveToMaster`.
/// Unsafe: signal sets and the kernel's record are passed as pointers.
@safe
struct SignalSource: ~Copyable {
    /// What a signal asks for.
    enum Request: Equatable {
        case terminate(signal: String)
        case reload(SupervisorState.Reload, signal: String)
    }

    private static let requests: [Int32: Request] = [
        SIGTERM: .terminate(signal: "SIGTERM"), SIGINT: .terminate(signal: "SIGINT"),
        SIGQUIT: .terminate(signal: "SIGQUIT"), SIGHUP: .reload(.inPlace, signal: "SIGHUP"),
        SIGUSR2: .reload(.newProgram, signal: "SIGUSR2"),
    ]

    private let source: FileDescriptor

    /// For epoll.
    var descriptor: Int32 { source.rawValue }

    /// Blocks the signals and opens the descriptor.
    init() throws(Errno) {
        var set = Self.requestSet()
        guard unsafe sigprocmask(SIG_BLOCK, &set, nil) == 0 else { throw Errno.last }
        // Children are reaped through their pidfd, which needs SIGCHLD not to be ignored; a parent may have
        // left it so.
        _ = signal(SIGCHLD, SIG_DFL)
        _ = signal(SIGPIPE, SIG_IGN)
        // Means nothing here, and must not end the service by its default.
        _ = signal(SIGUSR1, SIG_IGN)
        let raw = unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK) | Int32(SFD_CLOEXEC))
        guard raw >= 0 else { throw Errno.last }
        source = FileDescriptor(owning: raw)
    }

    /// In a child: ignores what is meant for the master, then lets signals through again. A terminal or a
    /// service manager sends its signal to every process; a child goes when its control channel says so.
    static func leaveToMaster() {
        for number in requests.keys { _ = signal(number, SIG_IGN) }
        var set = requestSet()
        _ = unsafe sigprocmask(SIG_UNBLOCK, &set, nil)
    }

    /// The next request, or nil when no signal waits.
    func next() -> Request? {
        var info = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        guard unsafe read(source.rawValue, &info, size) == size else { return nil }
        return Self.requests[Int32(info.ssi_signo)]
    }

    private static func requestSet() -> sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in requests.keys { unsafe sigaddset(&set, number) }
        return set
    }
}
