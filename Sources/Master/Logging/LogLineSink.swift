import CShims
import Glibc
import ShmRing

/// Standard error for log lines, without ever waiting for whoever reads it: a process that stopped because its log
/// pipe is full would stop serving, or looking after its children.
///
/// The description behind standard error is shared with other processes, so its flags are left alone. A pipe, terminal
/// or FIFO is opened again through /proc/self/fd, which gives a description of this process's own; a socket is written
/// with MSG_DONTWAIT; a file takes everything. Where opening again fails, a line is written only while poll(2) says that
/// there is room.
/// Unsafe: lends bytes to system calls. Used by the one thread that a process of ours logs from.
final class LogLineSink: @unchecked Sendable {
    private enum Kind {
        case plain, socket, polled
    }

    private let descriptor: Int32
    private let own: FileDescriptor?
    private let kind: Kind
    /// Lines lost since the last one that went out.
    private(set) var droppedCount: UInt64 = 0
    /// The line before went out in part; the next begins on a line of its own.
    private var isMidLine = false

    /// - Parameter inherited: Open for writing; stays the caller's.
    init(_ inherited: Int32) {
        var status = stat()
        let type = unsafe fstat(inherited, &status) == 0 ? status.st_mode & S_IFMT : S_IFREG
        switch type {
        case S_IFIFO, S_IFCHR:
            let raw = unsafe open("/proc/self/fd/\(inherited)", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
            own = raw >= 0 ? FileDescriptor(owning: raw) : nil
            descriptor = raw >= 0 ? raw : inherited
            kind = raw >= 0 ? .plain : .polled
        default:
            own = nil
            descriptor = inherited
            kind = type == S_IFSOCK ? .socket : .plain
        }
    }

    /// Writes one line, or counts it as lost.
    /// - Parameter text: Makes the line, with its end; gets the number of lines that were lost before it.
    func write(_ text: (_ dropped: UInt64) -> String) {
        var line = (isMidLine ? "\n" : "") + text(droppedCount)
        let count = line.utf8.count
        let written = line.withUTF8 { unsafe writeOnce($0) }
        guard written > 0 else {
            droppedCount += 1
            return
        }
        droppedCount = written == count ? 0 : 1
        isMidLine = written < count
    }

    private func writeOnce(_ bytes: UnsafeBufferPointer<UInt8>) -> Int {
        if kind == .polled, !hasRoom() { return -1 }
        while true {
            let written =
                unsafe kind == .socket
                ? send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
                : Glibc.write(descriptor, bytes.baseAddress, bytes.count)
            if written < 0 && errno == EINTR { continue }
            return written
        }
    }

    private func hasRoom() -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return unsafe poll(&entry, 1, 0) == 1
    }
}
