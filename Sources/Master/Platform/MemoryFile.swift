import CShims
import Glibc
import ShmRing

/// A file without a name that holds a few bytes: what a program that was started says, or what this image of the
/// program tells the next one.
/// Unsafe: lends bytes to write(2) and pread(2).
struct MemoryFile: ~Copyable {
    /// More than anything that is written here takes.
    static let bytesMax = 16 << 20

    private let file: FileDescriptor

    var descriptor: Int32 { file.rawValue }

    init(name: String) throws(Errno) {
        let raw = unsafe lb_memfd_create(name)
        guard raw >= 0 else { throw Errno.last }
        file = FileDescriptor(owning: raw)
    }

    init(adopting file: consuming FileDescriptor) {
        self.file = file
    }

    func write(_ bytes: [UInt8]) throws(Errno) {
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { bytes in
                unsafe Glibc.write(file.rawValue, bytes.baseAddress! + written, bytes.count - written)
            }
            guard count > 0 || errno == EINTR else { throw Errno.last }
            written += max(0, count)
        }
    }

    /// Everything in it, from its beginning.
    /// - Parameter bytesMax: What is longer is cut.
    func contents(bytesMax: Int = MemoryFile.bytesMax) throws(Errno) -> [UInt8] {
        var facts = stat()
        guard unsafe fstat(file.rawValue, &facts) == 0 else { throw Errno.last }
        guard facts.st_mode & S_IFMT == S_IFREG else { throw Errno(EINVAL) }
        var bytes = [UInt8](repeating: 0, count: min(Int(facts.st_size), bytesMax))
        var count = 0
        while count < bytes.count {
            let got = unsafe bytes.withUnsafeMutableBytes { room in
                unsafe pread(file.rawValue, room.baseAddress! + count, room.count - count, count)
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw Errno.last }
            guard got > 0 else { break }
            count += got
        }
        return Array(bytes.prefix(count))
    }
}
