import Glibc
import ShmRing

/// The file that says which process to send signals to.
///
/// It appears whole, by renaming, when the balancer is ready, and is removed at an orderly end, but only if it
/// still names this process: a successor may have written its own by then.
/// Unsafe: calls the variadic open(2), lends memory to write(2), passes C strings.
struct PIDFile {
    let path: String

    var exists: Bool { unsafe access(path, F_OK) == 0 }

    /// Writes this process's number; over a file that is there already.
    func write(processID: Int32) throws(Errno) {
        let temporary = "\(path).\(processID).new"
        // Whatever lies under that name is left over from a process that died with this number.
        _ = unsafe unlink(temporary)
        let raw = unsafe open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o644)
        guard raw >= 0 else { throw Errno.last }
        let file = FileDescriptor(owning: raw)
        let line = Array("\(processID)\n".utf8)
        guard unsafe Glibc.write(file.rawValue, line, line.count) == line.count, unsafe rename(temporary, path) == 0
        else {
            let error = Errno.last
            _ = unsafe unlink(temporary)
            throw error
        }
    }

    /// Removes the file if it names this process.
    func remove(processID: Int32) {
        guard let text = try? SmallFile.text(path), text == "\(processID)\n" else { return }
        _ = unsafe unlink(path)
    }
}
