import CShims
import Glibc
import ShmRing

/// Which child: the place it fills, whatever process fills it at the moment.
enum ChildSlot: Hashable, Sendable, CustomStringConvertible {
    case worker(Int)
    case exporter

    /// Nil for the exporter.
    var workerIndex: Int? {
        switch self {
        case .worker(let index): index
        case .exporter: nil
        }
    }

    /// As the log's role and the process titles name it.
    var description: String {
        switch self {
        case .worker(let index): "worker-\(index)"
        case .exporter: "exporter"
        }
    }
}

/// How a process ended.
enum ChildEnd: Equatable, CustomStringConvertible {
    case exited(status: Int32)
    case killed(signal: Int32)

    var description: String {
        switch self {
        case .exited(let status): "exit status \(status)"
        case .killed(let signal): "signal \(signal) (\(unsafe String(cString: strsignal(signal))))"
        }
    }
}

/// The master's side of one running child. The master keeps it until the child is reaped, so the pid cannot
/// come to mean another process meanwhile.
/// Unsafe: reaping fills two integers, and a signal's name is a C string.
final class ChildProcess {
    let slot: ChildSlot
    let pid: Int32
    let control: ControlChannel
    private let handle: FileDescriptor

    /// Readable when the child has ended.
    var endDescriptor: Int32 { handle.rawValue }

    /// Takes over a child that was just forked.
    /// - Throws: What kept the kernel from giving a handle; the child is killed and reaped then.
    init(slot: ChildSlot, pid: Int32, control: consuming ControlChannel) throws(Errno) {
        self.slot = slot
        self.pid = pid
        self.control = control
        handle = try Self.handle(of: pid)
    }

    /// A pidfd of a process that was just started.
    /// - Throws: What kept the kernel from giving one; the process is killed and reaped then.
    static func handle(of pid: Int32) throws(Errno) -> FileDescriptor {
        let raw = lb_pidfd_open(pid)
        guard raw >= 0 else {
            let error = Errno.last
            discard(pid)
            throw error
        }
        return FileDescriptor(owning: raw)
    }

    /// Takes over a child of the image that this program replaced.
    init(slot: ChildSlot, pid: Int32, control: consuming ControlChannel, handle: consuming FileDescriptor) {
        self.slot = slot
        self.pid = pid
        self.control = control
        self.handle = handle
    }

    func kill() { signal(SIGKILL) }

    func signal(_ number: Int32) {
        _ = Glibc.kill(pid, number)
    }

    /// Reaps the child if it has ended.
    /// - Returns: How it ended, or nil while it runs.
    func reap() -> ChildEnd? { Self.reap(handle.rawValue) }

    /// Reaps the child behind a pidfd if it has ended.
    static func reap(_ handle: Int32) -> ChildEnd? {
        var status: Int32 = 0
        var signal: Int32 = 0
        guard unsafe lb_reap(handle, &status, &signal) == 1 else { return nil }
        return signal == 0 ? .exited(status: status) : .killed(signal: signal)
    }

    /// Kills and reaps a child that nobody has begun to watch.
    static func discard(_ pid: Int32) {
        _ = Glibc.kill(pid, SIGKILL)
        while waitpid(pid, nil, 0) < 0 && errno == EINTR {}
    }
}
