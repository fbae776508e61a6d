import Glibc

/// Finds the file that a program's name stands for, as a shell does.
/// Unsafe: the C library fills a buffer and returns C strings.
enum ExecutablePath {
    /// - Parameter name: The first argument of the process.
    /// - Returns: An absolute path, symbolic links kept, so that a link that is changed later leads to the new program.
    static func resolve(_ name: String) -> String? {
        if name.hasPrefix("/") { return name }
        if name.contains("/") { return workingDirectory().map { $0 + "/" + name } }
        let path = HostFacts.environment(["PATH"])["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
        return path.split(separator: ":").map { "\($0)/\(name)" }.first { unsafe access($0, X_OK) == 0 }
    }

    private static func workingDirectory() -> String? {
        guard let path = unsafe getcwd(nil, 0) else { return nil }
        defer { unsafe free(path) }
        return unsafe String(cString: path)
    }
}
