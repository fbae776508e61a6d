import CShims
import Glibc
import ShmRing

// The few system calls of the exporter that are neither the transport's nor the ring's.

/// Signals that are for the master to act on, and reach a child only because a terminal sends them to the
/// whole group.
enum IgnoredSignals {
    /// The control channel says when to go; a closed connection or pipe is a result, not a signal.
    static func ignore() {
        for number in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE] {
            var action = sigaction()
            unsafe action.__sigaction_handler.sa_handler = SIG_IGN
            let result = unsafe sigaction(number, &action, nil)
            precondition(result == 0, "sigaction(\(number)): \(Errno.last)")
        }
    }
}

/// The read end of the pipe whose write ends are held by everybody who could write a span.
struct WritersPipe: ~Copyable {
    private let pipe: FileDescriptor

    init(owning descriptor: Int32) {
        pipe = FileDescriptor(owning: descriptor)
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    }

    var descriptor: Int32 { pipe.rawValue }

    /// False once the last write end is closed. Nobody writes into it.
    var hasWriters: Bool {
        var byte: UInt8 = 0
        return unsafe read(pipe.rawValue, &byte, 1) != 0
    }
}

/// Waiting for descriptors without a transport.
enum Readiness {
    /// Until one of the descriptors is readable or hung up, or the time is over.
    static func wait(descriptors: [Int32], timeoutMs: Int32) {
        var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        _ = unsafe poll(&entries, nfds_t(entries.count), timeoutMs)
    }
}

/// Standard output, written whole or not at all.
enum StandardOutput {
    /// Waits for a slow reader.
    static func write(_ bytes: Span<UInt8>) throws(Errno) {
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes.withUnsafeBufferPointer { buffer in
                unsafe Glibc.write(STDOUT_FILENO, buffer.baseAddress! + written, buffer.count - written)
            }
            if count >= 0 {
                written += count
            } else if errno == EAGAIN {
                awaitRoom()
            } else if errno != EINTR {
                throw Errno.last
            }
        }
    }

    private static func awaitRoom() {
        var entry = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
        _ = unsafe poll(&entry, 1, 1000)
    }
}
