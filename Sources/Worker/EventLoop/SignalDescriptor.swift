import CShims
import Glibc
import ShmRing

/// SIGTERM as a descriptor for epoll. Other signals that a terminal or an operator sends to the whole
/// process group are for the master, which tells its children what to do: they are ignored here.
struct SignalDescriptor: ~Copyable {
    private let descriptor: FileDescriptor

    /// Blocks SIGTERM for this process and ignores the master's signals.
    init() throws(Errno) {
        for number in [SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE] { signal(number, SIG_IGN) }
        var set = sigset_t()
        unsafe sigemptyset(&set)
        unsafe sigaddset(&set, SIGTERM)
        unsafe sigprocmask(SIG_BLOCK, &set, nil)
        let raw = unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK | SFD_CLOEXEC))
        guard raw >= 0 else { throw Errno.last }
        descriptor = FileDescriptor(owning: raw)
    }

    var rawValue: Int32 { descriptor.rawValue }

    /// Takes the signals that arrived.
    func clear() {
        var info = signalfd_siginfo()
        while unsafe read(descriptor.rawValue, &info, MemoryLayout<signalfd_siginfo>.size) > 0 {}
    }
}
