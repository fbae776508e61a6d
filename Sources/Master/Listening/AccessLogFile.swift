import CShims
import Glibc
import ShmRing

/// The access log, opened by the master so that every worker appends to the same file.
/// Unsafe: calls the variadic open(2).
enum AccessLogFile {
    /// - Returns: A descriptor that stays open for the process's life.
    static func open(_ target: Configuration.AccessLogTarget) throws(StartFailure) -> Int32 {
        switch target {
        case .standardOutput: STDOUT_FILENO
        case .file(let path): try open(path: path)
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
