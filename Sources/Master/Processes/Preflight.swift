import Glibc
import ShmRing

/// The program on disk, run with `--check` and the arguments of this one, before this one is given up for it.
final class Preflight {
    /// Tells a program that is checked which form of state it would be handed.
    static let handoverVariable = "LOAD_BALANCER_HANDOVER_VERSION"

    /// In the program that is checked: whether it would understand the state of the one that asks.
    static func checkVersion() throws(StartFailure) {
        guard let wanted = HostFacts.environment([handoverVariable])[handoverVariable] else { return }
        guard wanted == "\(Handover.version)" else {
            throw .usage(
                "the running program hands over state of version \(wanted), this one reads \(Handover.version); "
                    + "restart instead of reloading")
        }
    }

    let pid: Int32
    private let handle: FileDescriptor
    private let output: MemoryFile

    /// Readable when the check is over.
    var endDescriptor: Int32 { handle.rawValue }

    init(_ executable: String, _ launch: Launch) throws(Errno) {
        output = try MemoryFile(name: "load_balancer-preflight")
        ProgramStart.setEnvironment(Self.handoverVariable, "\(Handover.version)")
        defer { ProgramStart.setEnvironment(Self.handoverVariable, nil) }
        pid = try ProgramStart.start(executable, launch.arguments + ["--check"], output: output.descriptor)
        handle = try ChildProcess.handle(of: pid)
    }

    /// How it ended and the last line of what it said; nil while it runs.
    func result() -> (end: ChildEnd, lastLine: String)? {
        guard let end = ChildProcess.reap(handle.rawValue) else { return nil }
        let bytes = (try? output.contents(bytesMax: 64 * 1024)) ?? []
        let line = bytes.split(separator: UInt8(ascii: "\n")).last.map { String(decoding: $0, as: UTF8.self) } ?? ""
        return (end, line)
    }

    /// It took too long, or nobody waits for it any more.
    func stop() { ChildProcess.discard(pid) }
}
