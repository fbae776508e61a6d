import Glibc
import ShmRing

/// A folder of one test, removed with what is in it.
final class TemporaryFolder {
    let path: String

    init() {
        var template = Array("/tmp/load_balancer_test.XXXXXX".utf8CString)
        precondition(unsafe mkdtemp(&template) != nil, "cannot make a folder: \(Errno.last)")
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        Self.remove(path)
    }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    func write(_ text: String, to name: String) {
        guard let file = unsafe fopen(file(name), "w") else { preconditionFailure("\(name): \(Errno.last)") }
        let bytes = Array(text.utf8)
        _ = unsafe fwrite(bytes, 1, bytes.count, file)
        _ = unsafe fclose(file)
    }

    /// Renames as editors do it to save.
    func rename(_ old: String, to new: String) {
        precondition(unsafe Glibc.rename(file(old), file(new)) == 0, "\(old): \(Errno.last)")
    }

    func makeFolder(_ name: String) {
        precondition(unsafe mkdir(file(name), 0o755) == 0, "\(name): \(Errno.last)")
    }

    func link(_ name: String, to target: String) {
        precondition(unsafe symlink(target, file(name)) == 0, "\(name): \(Errno.last)")
    }

    var names: [String] { Self.names(in: path) }

    private static func names(in folder: String) -> [String] {
        guard let entries = unsafe opendir(folder) else { return [] }
        defer { _ = unsafe closedir(entries) }
        var names: [String] = []
        while let entry = unsafe readdir(entries) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    private static func remove(_ path: String) {
        if unsafe unlink(path) == 0 { return }
        for name in names(in: path) { remove("\(path)/\(name)") }
        _ = unsafe rmdir(path)
    }
}
