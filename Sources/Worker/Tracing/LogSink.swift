import CShims
import Glibc
import ShmRing

/// Where log lines go without ever waiting: a file takes everything, a pipe or terminal is written through
/// a non-blocking description of this process's own, a socket only while it has room.
///
/// The inherited descriptor is shared with other processes, so its flags are left alone.
struct LogSink: ~Copyable {
    private let descriptor: Int32
    private let own: FileDescriptor?
    private let isSocket: Bool

    /// - Parameter inherited: Open for writing; stays the caller's.
    init(_ inherited: Int32) {
        var status = stat()
        let kind = unsafe fstat(inherited, &status) == 0 ? status.st_mode & S_IFMT : S_IFREG
        isSocket = kind == S_IFSOCK
        if kind == S_IFIFO || kind == S_IFCHR {
            let raw = unsafe open("/proc/self/fd/\(inherited)", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
            own = raw >= 0 ? FileDescriptor(owning: raw) : nil
            descriptor = raw >= 0 ? raw : inherited
        } else {
            own = nil
            descriptor = inherited
        }
    }

    /// Writes up to `count` bytes from the front of `buffer`.
    func write(_ buffer: ByteBuffer, countMax: Int) -> IOResult {
        isSocket && !hasRoom() ? .wouldBlock : buffer.write(to: descriptor, countMax: countMax)
    }

    private func hasRoom() -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return unsafe poll(&entry, 1, 0) == 1
    }
}
