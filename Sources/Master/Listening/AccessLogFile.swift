import CShims
import Glibc
import ShmRing

/// The access log of one generation, opened by the master so that every worker appends to the same file. A reload
/// opens it anew, so a file that was moved away is let go.
/// Unsafe: calls the variadic open(2).
final class AccessLogFile {
    /// Nil for standard output, which is not this object's to close.
    private let file: FileDescriptor?

    /// Open for appending as long as the object lives.
    let descriptor: Int32

    init(_ target: Configuration.AccessLogTarget) throws(StartFailure) {
        switch target {
        case .standardOutput:
            descriptor = STDOUT_FILENO
            file = nil
        case .file(let path):
            descriptor = try Self.open(path: path)
            file = FileDescriptor(owning: descriptor)
        }
    }

    private static func open(path: String) throws(StartFailure) -> Int32 {
        let descriptor = unsafe Glibc.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else {
            let error = Errno.last
            throw .runTime("cannot write the access log \(path): \(error); choose another --access-log")
        }
        return descriptor
    }
}
