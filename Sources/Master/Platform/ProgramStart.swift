import CShims
import Glibc
import ShmRing

/// Starts other programs, and becomes another one.
/// Unsafe: argument lists are arrays of C strings.
enum ProgramStart {
    /// Starts a program; standard output and error go to `output`.
    /// - Returns: Its process id.
    static func start(_ path: String, _ arguments: [String], output: Int32) throws(Errno) -> Int32 {
        let pid = unsafe withArguments(arguments) { unsafe lb_start_program(path, $0, output) }
        guard pid > 0 else { throw Errno.last }
        return pid
    }

    /// Replaces this process's program.
    /// - Returns: Only if that failed, with the reason.
    static func become(_ path: String, _ arguments: [String]) -> Errno {
        unsafe withArguments(arguments) { list in
            unsafe lb_become_program(path, list)
            return Errno.last
        }
    }

    /// Whether a descriptor stays open in the program that this process becomes.
    static func keep(_ descriptor: Int32, _ isKept: Bool) throws(Errno) {
        guard lb_keep_at_exec(descriptor, isKept ? 1 : 0) == 0 else { throw Errno.last }
    }

    static func setEnvironment(_ name: String, _ value: String?) {
        if let value {
            unsafe setenv(name, value, 1)
        } else {
            unsafe unsetenv(name)
        }
    }

    private static func withArguments<Result>(
        _ arguments: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        var list: [UnsafeMutablePointer<CChar>?] = unsafe arguments.map { unsafe strdup($0) }
        unsafe list.append(nil)
        defer { unsafe list.forEach { unsafe free($0) } }
        return unsafe list.withUnsafeBufferPointer { unsafe body($0.baseAddress!) }
    }
}
