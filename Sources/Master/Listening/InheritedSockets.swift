import CShims
import Glibc
import ShmRing

/// Listening sockets that a service manager opened before it started this process: socket activation, as
/// sd_listen_fds(3) describes it. LISTEN_FDS of them, from descriptor 3 on, meant for the process LISTEN_PID.
///
/// They take the place of what `--address` and `--port` name. Each worker accepts from all of them: they have no
/// SO_REUSEPORT, so there is one queue of clients for each socket, and whoever is awake first takes the next.
/// Unsafe: socket options are passed as pointers.
final class InheritedSockets {
    static let variables = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
    private static let first: Int32 = 3
    private static let countMax = 64

    /// What a unit calls the socket of HTTPS (FileDescriptorName=), where there is one for each.
    static let nameOfTLS = "https"

    /// They stay open for the process's life.
    let descriptors: [Int32]
    /// Of each, as its unit calls it; empty where the manager does not say.
    private let names: [String]
    /// Where the first of them accepts.
    let address: SocketAddress

    /// Takes over what there is: marks it close-on-exec and non-blocking.
    /// - Parameters:
    ///   - environment: Values of `variables`.
    ///   - first: The first descriptor; 3 outside of tests.
    /// - Returns: Nil when there is none for this process.
    /// - Throws: When one is no listening TCP socket.
    init?(environment: [String: String], processID: Int32, first: Int32 = first) throws(StartFailure) {
        guard environment["LISTEN_PID"] == "\(processID)", let text = environment["LISTEN_FDS"],
            let count = WholeNumber.parse(text[...]), count > 0
        else { return nil }
        guard count <= Self.countMax else {
            throw .runTime("LISTEN_FDS is \(count); at most \(Self.countMax) are taken")
        }
        let names = (environment["LISTEN_FDNAMES"] ?? "").split(separator: ":", omittingEmptySubsequences: false)
        self.names = names.count == count ? names.map(String.init) : Array(repeating: "", count: Int(count))
        descriptors = Array(first..<first + Int32(count))
        for socket in descriptors { try Self.prepare(socket) }
        let raw = first
        address = unsafe SocketAddress { _ = unsafe getsockname(raw, $0, $1) }
    }

    /// Which sockets stand for which place to listen.
    /// - Parameters:
    ///   - plain: The first place; everything where there is no other.
    ///   - tls: Where TLS is spoken, if it is.
    /// - Throws: When a socket is meant for TLS that is not spoken.
    func places(plain: ListenAddress, tls: ListenAddress?) throws(StartFailure) -> [(ListenAddress, [Int32])] {
        let forTLS = zip(descriptors, names).filter { $0.1 == Self.nameOfTLS }.map(\.0)
        guard let tls else {
            guard forTLS.isEmpty else {
                throw .usage(
                    "an inherited socket is named \(Self.nameOfTLS), but there is no certificate; add --tls-cert")
            }
            return [(plain, descriptors)]
        }
        guard tls != plain else { return [(plain, descriptors)] }
        return [(plain, descriptors.filter { !forTLS.contains($0) }), (tls, forTLS)].filter { !$0.1.isEmpty }
    }

    /// Removes the variables, so that nobody takes the sockets a second time.
    static func clearEnvironment() {
        for name in variables { _ = unsafe unsetenv(name) }
    }

    private static func prepare(_ socket: Int32) throws(StartFailure) {
        guard let isListening = option(SO_ACCEPTCONN, of: socket) else {
            throw .runTime("the inherited descriptor \(socket) is no socket: \(Errno.last); check the unit's [Socket]")
        }
        let isTCP = [AF_INET, AF_INET6].contains(option(SO_DOMAIN, of: socket))
        guard isListening == 1, isTCP, option(SO_TYPE, of: socket) == Int32(SOCK_STREAM.rawValue) else {
            throw .runTime("the inherited socket \(socket) does not listen for TCP; use ListenStream= with a port")
        }
        let flags = fcntl(socket, F_GETFL)
        guard fcntl(socket, F_SETFD, FD_CLOEXEC) == 0, fcntl(socket, F_SETFL, flags | O_NONBLOCK) == 0 else {
            throw .runTime("cannot prepare the inherited socket \(socket): \(Errno.last)")
        }
    }

    private static func option(_ name: Int32, of socket: Int32) -> Int32? {
        var value: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        return unsafe getsockopt(socket, SOL_SOCKET, name, &value, &size) == 0 ? value : nil
    }
}
