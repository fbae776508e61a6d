import Glibc
import ShmRing

/// Notices that the configuration file, or a file that it names, has other contents than before (inotify(7)).
///
/// It watches the files' folders, not the files: editors save by renaming a new file into place, and Kubernetes
/// renames a symbolic link in the folder, `..data`, through which the file's path leads. Either would leave a
/// watch on the file with what nobody sees any more. Whatever happens in a folder, the contents decide.
/// A file that its path reaches through a link and that is edited in another folder goes unnoticed.
///
/// How to use it: `changed` when `descriptor` is readable and when `wakeAtNs` has come.
/// Unsafe: inotify's calls take C strings and memory.
final class ConfigurationWatch {
    private static let events =
        UInt32(IN_CREATE) | UInt32(IN_MOVED_TO) | UInt32(IN_CLOSE_WRITE) | UInt32(IN_ATTRIB) | UInt32(IN_DELETE_SELF)
        | UInt32(IN_MOVE_SELF)

    /// With what was seen last in each.
    private var files: [WatchedFile]
    /// Each folder of a file once, with inotify's number of its watch; nil where there is none at the moment.
    private var folders: [String: Int32?] = [:]
    private var quiet = QuietPeriod()
    private let source: FileDescriptor

    /// For epoll.
    var descriptor: Int32 { source.rawValue }

    /// When to call `changed` even if nothing is readable; nil: not at all.
    var wakeAtNs: UInt64? { quiet.wakeAtNs }

    /// - Parameter files: What is in force. If something else stands there by now, that is the first change.
    /// - Throws: When one of their folders cannot be watched.
    init(_ files: [WatchedFile], nowNs: UInt64) throws(Errno) {
        self.files = files
        let raw = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        guard raw >= 0 else { throw Errno.last }
        source = FileDescriptor(owning: raw)
        for file in files { folders.updateValue(nil, forKey: file.folder) }
        guard watchFolders() else { throw Errno.last }
        quiet.eventOccurred(nowNs: nowNs)
    }

    /// Somebody has read these: what they say is no change, and from now on these are the files that matter.
    func follow(_ files: [WatchedFile], nowNs: UInt64) {
        self.files = files
        let wanted = Set(files.map(\.folder))
        for (folder, watch) in folders where !wanted.contains(folder) {
            if let watch { _ = inotify_rm_watch(source.rawValue, watch) }
            folders[folder] = nil
        }
        for folder in wanted where folders[folder] == nil { folders.updateValue(nil, forKey: folder) }
        // What changed in a folder that nobody watched yet is seen by a look.
        if folders.values.contains(nil) { quiet.eventOccurred(nowNs: nowNs) }
    }

    /// - Returns: True when the files have come to rest and one has contents that it did not have before.
    func changed(nowNs: UInt64) -> Bool {
        if takeEvents() { quiet.eventOccurred(nowNs: nowNs) }
        guard quiet.isOver(nowNs: nowNs) else { return false }
        // A folder that was replaced, as a whole, has to be watched anew; until it is there, look again and again.
        if !watchFolders() { quiet.eventOccurred(nowNs: nowNs) }
        var isChanged = false
        for index in files.indices {
            guard let new = WatchedFile.mark(of: files[index].path), new != files[index].mark else { continue }
            files[index].mark = new
            isChanged = true
        }
        return isChanged
    }

    /// - Returns: Whether every folder is watched now.
    private func watchFolders() -> Bool {
        for (folder, watch) in folders where watch == nil {
            let new = unsafe inotify_add_watch(source.rawValue, folder, Self.events | UInt32(IN_ONLYDIR))
            guard new >= 0 else { return false }
            folders.updateValue(new, forKey: folder)
        }
        return true
    }

    /// Empties the queue; what happened to which file does not matter.
    private func takeEvents() -> Bool {
        var buffer = [UInt8](repeating: 0, count: 4096)
        var hasEvents = false
        while true {
            let count = unsafe read(source.rawValue, &buffer, buffer.count)
            guard count > 0 else { return hasEvents }
            hasEvents = true
            forgetMovedFolders(buffer[..<count])
        }
    }

    /// A folder that has gone elsewhere itself, by the records: a watch would follow it there.
    private func forgetMovedFolders(_ records: ArraySlice<UInt8>) {
        let header = MemoryLayout<inotify_event>.size
        var rest = records
        while rest.count >= header {
            let event = unsafe rest.withUnsafeBytes { unsafe $0.loadUnaligned(as: inotify_event.self) }
            if event.mask & (UInt32(IN_DELETE_SELF) | UInt32(IN_MOVE_SELF)) != 0 { forget(watch: event.wd) }
            rest = rest.dropFirst(header + Int(event.len))
        }
    }

    private func forget(watch: Int32) {
        _ = inotify_rm_watch(source.rawValue, watch)
        for (folder, known) in folders where known == watch { folders.updateValue(nil, forKey: folder) }
    }
}
