import CShims
import Glibc
import ShmRing

/// A pipe that nobody writes to: its write end lives in every process that may still write spans, so end
/// of file on the read end, which the exporter has, means that the last of them is gone.
/// Unsafe: the kernel fills an array.
final class WritersAlivePipe {
    private let read: FileDescriptor
    private let write: FileDescriptor

    var readEnd: Int32 { read.rawValue }
    var writeEnd: Int32 { write.rawValue }

    init(adoptingRead read: consuming FileDescriptor, write: consuming FileDescriptor) {
        self.read = read
        self.write = write
    }

    init() throws(Errno) {
        var ends: [Int32] = [-1, -1]
        guard unsafe lb_make_pipe(&ends) == 0 else { throw Errno.last }
        read = FileDescriptor(owning: ends[0])
        write = FileDescriptor(owning: ends[1])
    }
}
