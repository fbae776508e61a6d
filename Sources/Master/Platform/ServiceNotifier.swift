import CShims
import Glibc
import ShmRing

/// Tells the service manager how the service fares: sd_notify(3)'s protocol, spoken by hand. One datagram each
/// time, to the socket that NOTIFY_SOCKET names.
///
/// Nothing here can fail for the caller: a manager that does not listen costs what it would have shown.
/// The variables stay in the environment, for the next image after an execve.
/// Unsafe: lends memory to sendto(2).
final class ServiceNotifier {
    private let socket: FileDescriptor
    private let address: SocketAddress

    /// How often `watchdog` wants to be called: half of what the manager allows. Nil when it does not ask for that.
    let watchdogNs: UInt64?

    static let variables = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]

    /// - Parameter environment: Values of `variables`.
    /// - Returns: Nil when no manager wants to be told, or by a kind of socket that is not known here.
    init?(environment: [String: String], processID: Int32) {
        guard let name = environment["NOTIFY_SOCKET"], let address = Self.address(name) else { return nil }
        let raw = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return nil }
        socket = FileDescriptor(owning: raw)
        self.address = address
        watchdogNs = Self.watchdogNs(environment, processID: processID)
    }

    /// The service serves; also the end of a reload.
    func ready(processID: Int32, status: String) {
        send("READY=1\nMAINPID=\(processID)\nSTATUS=\(Self.oneLine(status))")
    }

    /// - Parameter nowNs: Of CLOCK_MONOTONIC, by which the manager tells this reload's end from an earlier one's.
    func reloading(nowNs: UInt64) {
        send("RELOADING=1\nMONOTONIC_USEC=\(nowNs / 1000)\nSTATUS=reloading")
    }

    func stopping() {
        send("STOPPING=1\nSTATUS=finishing the requests in flight")
    }

    /// One line for people (`systemctl status`).
    func status(_ text: String) {
        send("STATUS=\(Self.oneLine(text))")
    }

    /// The loop still turns.
    func watchdog() {
        send("WATCHDOG=1")
    }

    /// Does not wait: a manager whose queue is full must not stop the master.
    private func send(_ message: String) {
        let bytes = Array(message.utf8)
        _ = unsafe address.withSockaddr { address, length in
            unsafe sendto(
                socket.rawValue, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT), address,
                length)
        }
    }

    /// A newline would begin another assignment.
    private static func oneLine(_ text: String) -> String {
        PrintableText.escaped(text)
    }

    /// A path, or with @ in front a name in the abstract namespace (unix(7)).
    private static func address(_ name: String) -> SocketAddress? {
        if name.hasPrefix("/") { return SocketAddress(unixPath: name) }
        guard name.hasPrefix("@") else { return nil }
        return SocketAddress(abstractName: String(name.dropFirst()))
    }

    private static func watchdogNs(_ environment: [String: String], processID: Int32) -> UInt64? {
        if let owner = environment["WATCHDOG_PID"], owner != "\(processID)" { return nil }
        guard let text = environment["WATCHDOG_USEC"], let usec = WholeNumber.parse(text[...]), usec > 0,
            usec <= SecondsText.nsMax / 1000
        else { return nil }
        return usec * 1000 / 2
    }
}

/// When the manager's watchdog wants to hear something.
struct WatchdogRhythm {
    private let periodNs: UInt64?
    private(set) var wakeAtNs: UInt64?

    /// - Parameter periodNs: `ServiceNotifier.watchdogNs`.
    init(periodNs: UInt64?, nowNs: UInt64) {
        self.periodNs = periodNs
        wakeAtNs = periodNs.map { _ in nowNs }
    }

    /// - Returns: Whether to send now.
    mutating func isDue(nowNs: UInt64) -> Bool {
        guard let periodNs, let at = wakeAtNs, nowNs >= at else { return false }
        wakeAtNs = nowNs + periodNs
        return true
    }
}
