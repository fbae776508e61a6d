import Glibc

/// A file whose contents matter, and what they were when somebody read them.
///
/// Unsafe: hands the bytes to a hasher where they are, so that no copy of a private key stays in memory.
struct WatchedFile: Equatable, Sendable {
    let path: String
    /// Stands for the contents, which may be a private key, within this process; nil: there were none to read.
    var mark: Int?

    /// The folder in which the path finds the file.
    var folder: String {
        let slash = path.lastIndex(of: "/")
        return slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    }

    /// Whether there is a folder that can be watched.
    var hasFolder: Bool { unsafe access(folder, X_OK) == 0 }

    /// A file as it is at this moment.
    init(path: String) {
        self.path = path
        mark = Self.mark(of: path)
    }

    /// A file with the contents that were read from it.
    init(path: String, text: String) {
        self.path = path
        var hasher = Hasher()
        var text = text
        text.withUTF8 { unsafe hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        mark = hasher.finalize()
    }

    static func mark(of path: String) -> Int? {
        var hasher = Hasher()
        do throws(BadValue) {
            try unsafe SmallFile.forEachPiece(path) { piece in unsafe hasher.combine(bytes: piece) }
        } catch {
            return nil
        }
        return hasher.finalize()
    }
}
