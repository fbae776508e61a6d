import Glibc
import ShmRing

/// A small file read whole, at start. Unsafe: calls the variadic open(2) and reads into memory.
enum FileBytes {
    private static let bytesMax = 1 << 20

    /// - Parameter what: What it is to be, for the message.
    static func read(_ path: String, what: String) throws(TLSProblem) -> [UInt8] {
        let raw = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { throw TLSProblem("cannot read the \(what) \(path): \(Errno.last)") }
        let file = FileDescriptor(owning: raw)
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 16384)
        while bytes.count <= bytesMax {
            let count = unsafe Glibc.read(file.rawValue, &piece, piece.count)
            if count == 0 { return bytes }
            guard count > 0 else { throw TLSProblem("cannot read the \(what) \(path): \(Errno.last)") }
            bytes += piece.prefix(count)
        }
        throw TLSProblem("cannot read the \(what) \(path): it is larger than 1 MiB")
    }
}
