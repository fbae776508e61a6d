import Glibc
import ShmRing

/// Reads a file that should be small: the configuration, which may be anything that was named by mistake.
/// Unsafe: calls the variadic open(2), lends memory to read(2).
enum SmallFile {
    static let bytesMax = 1 << 20

    /// - Returns: The file's text.
    /// - Throws: What is wrong with it, as the end of a sentence that begins with its path.
    static func text(_ path: String) throws(BadValue) -> String {
        var bytes: [UInt8] = []
        try unsafe forEachPiece(path) { piece in unsafe bytes += piece }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw BadValue("is not UTF-8 text") }
        return text
    }

    /// Reads a file and keeps nothing of it in memory.
    /// - Throws: As `text`.
    static func forEachPiece(_ path: String, _ body: (UnsafeRawBufferPointer) -> Void) throws(BadValue) {
        // Not to wait for whoever might open the other end of a FIFO.
        let raw = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard raw >= 0 else { throw BadValue("cannot be read: \(Errno.last)") }
        let file = FileDescriptor(owning: raw)
        var status = stat()
        guard unsafe fstat(file.rawValue, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw BadValue("cannot be read: it is not a regular file")
        }
        try unsafe forEachPiece(of: file, body)
    }

    private static func forEachPiece(
        of file: borrowing FileDescriptor, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(BadValue) {
        var piece = [UInt8](repeating: 0, count: 64 * 1024)
        defer { unsafe piece.withUnsafeMutableBytes { unsafe explicit_bzero($0.baseAddress!, $0.count) } }
        var total = 0
        while total <= bytesMax {
            let count = unsafe read(file.rawValue, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw BadValue("cannot be read: \(Errno.last)") }
            guard count > 0 else { return }
            unsafe piece.withUnsafeBytes { unsafe body(UnsafeRawBufferPointer(rebasing: $0.prefix(count))) }
            total += count
        }
        throw BadValue("is larger than \(BytesText.format(bytesMax)); a configuration is not")
    }
}
