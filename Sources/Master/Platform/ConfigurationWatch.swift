import Glibc
import ShmRing

/// Notices that the configuration file has another text than before (inotify(7)).
///
/// It watches the file's folder, not the file: editors save by renaming a new file into place, and Kubernetes
/// renames a symbolic link in the folder, `..data`, through which the file's path leads. Either would leave a
/// watch on the file with what nobody sees any more. Whatever happens in the folder, the text decides.
/// A file that the path reaches through a link and that is edited in another folder goes unnoticed.
///
/// How to use it: `changed` when `descriptor` is readable and when `wakeAtNs` has come.
/// Unsafe: inotify's calls take C strings and memory.
final class ConfigurationWatch {
    private static let events =
        UInt32(IN_CREATE) | UInt32(IN_MOVED_TO) | UInt32(IN_CLOSE_WRITE) | UInt32(IN_ATTRIB) | UInt32(IN_DELETE_SELF)
        | UInt32(IN_MOVE_SELF)

    private let path: String
    private let folder: String
    /// The text that was seen last.
    private var text: String
    private var quiet = QuietPeriod()
    private let source: FileDescriptor
    private var watch: Int32 = -1

    /// For epoll.
    var descriptor: Int32 { source.rawValue }

    /// When to call `changed` even if nothing is readable; nil: not at all.
    var wakeAtNs: UInt64? { quiet.wakeAtNs }

    /// - Parameters:
    ///   - path: As `--config` names it.
    ///   - text: The text that is in force. If another one stands there by now, that is the first change.
    init(path: String, text: String, nowNs: UInt64) throws(Errno) {
        self.path = path
        self.text = text
        let slash = path.lastIndex(of: "/")
        folder = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let raw = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        guard raw >= 0 else { throw Errno.last }
        source = FileDescriptor(owning: raw)
        guard watchFolder() else { throw Errno.last }
        quiet.eventOccurred(nowNs: nowNs)
    }

    /// Somebody has read this text: it is no change.
    func note(_ text: String) { self.text = text }

    /// - Returns: True when the file has come to rest with a text that it did not have before.
    func changed(nowNs: UInt64) -> Bool {
        if takeEvents() { quiet.eventOccurred(nowNs: nowNs) }
        guard quiet.isOver(nowNs: nowNs) else { return false }
        // A folder that was replaced, as a whole, has to be watched anew; until it is there, look again and again.
        if watch < 0 && !watchFolder() { quiet.eventOccurred(nowNs: nowNs) }
        guard let new = try? SmallFile.text(path), new != text else { return false }
        text = new
        return true
    }

    private func watchFolder() -> Bool {
        watch = unsafe inotify_add_watch(source.rawValue, folder, Self.events | UInt32(IN_ONLYDIR))
        return watch >= 0
    }

    /// Empties the queue; what happened to which file does not matter.
    private func takeEvents() -> Bool {
        var buffer = [UInt8](repeating: 0, count: 4096)
        var hasEvents = false
        while true {
            let count = unsafe read(source.rawValue, &buffer, buffer.count)
            guard count > 0 else { return hasEvents }
            hasEvents = true
            if Self.concernsFolder(buffer[..<count]) { forgetFolder() }
        }
    }

    /// The folder itself has gone elsewhere; a watch would follow it there.
    private func forgetFolder() {
        if watch >= 0 { _ = inotify_rm_watch(source.rawValue, watch) }
        watch = -1
    }

    /// Whether one of the records says that the folder was moved or deleted.
    private static func concernsFolder(_ records: ArraySlice<UInt8>) -> Bool {
        let header = MemoryLayout<inotify_event>.size
        var rest = records
        while rest.count >= header {
            let event = unsafe rest.withUnsafeBytes { unsafe $0.loadUnaligned(as: inotify_event.self) }
            if event.mask & (UInt32(IN_DELETE_SELF) | UInt32(IN_MOVE_SELF)) != 0 { return true }
            rest = rest.dropFirst(header + Int(event.len))
        }
        return false
    }
}
