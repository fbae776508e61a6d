import Glibc
import ShmRing

@testable import Worker

/// A connection and, at the other end of a socket pair, a peer that does what a test says.
///
/// The connection is registered with a poller of its own as the worker does it, so that its readiness is
/// what the kernel announced and nothing else: an edge that the code loses is lost here too.
/// Unsafe: socket calls on arrays, with their own counts.
final class ScriptedPeer {
    let connection: Connection
    private let poller: Poller
    private var descriptor: Int32

    /// - Parameters:
    ///   - roomBytes: About what the kernel holds for the peer before it refuses more.
    ///   - keepsPackets: Each read takes what one send sent.
    init(roomBytes: Int32? = nil, keepsPackets: Bool = false) {
        var pair: [Int32] = [-1, -1]
        let kind = keepsPackets ? SOCK_SEQPACKET : SOCK_STREAM
        let type = Int32(kind.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard unsafe socketpair(AF_UNIX, type, 0, &pair) == 0 else { fatalError("socketpair: \(Errno.last)") }
        if var room = roomBytes {
            unsafe setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, socklen_t(MemoryLayout<Int32>.size))
        }
        connection = Connection(descriptor: pair[0], slot: 0, generation: 0)
        descriptor = pair[1]
        do {
            poller = try Poller()
            try poller.addConnection(pair[0], token: EventToken(kind: .upstream, slot: 0))
        } catch {
            fatalError("epoll: \(error)")
        }
    }

    deinit {
        close()
        if !connection.isClosed { Glibc.close(connection.descriptor) }
    }

    /// Tells the connection what happened since it was told last.
    func deliverEvents() {
        for index in 0..<poller.wait(timeoutMs: 0) {
            if let (_, readiness) = poller.event(at: index) { connection.noticed(readiness) }
        }
    }

    /// Sends as much as the kernel takes.
    /// - Returns: How many bytes that was.
    @discardableResult
    func send(_ bytes: some Sequence<UInt8>) -> Int {
        let all = Array(bytes)
        return max(0, unsafe Glibc.send(descriptor, all, all.count, Int32(MSG_NOSIGNAL)))
    }

    @discardableResult
    func send(_ text: String) -> Int { send(text.utf8) }

    /// Reads what waits.
    func receive(countMax: Int = .max) -> [UInt8] {
        var all: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65536)
        while all.count < countMax {
            let count = unsafe recv(descriptor, &piece, min(piece.count, countMax - all.count), 0)
            guard count > 0 else { break }
            all += piece.prefix(count)
        }
        return all
    }

    var receivedText: String { String(decoding: receive(), as: UTF8.self) }

    /// Ends its sending side.
    func finish() { _ = shutdown(descriptor, Int32(SHUT_WR)) }

    /// Closes; with bytes that it has not read this is a reset for the connection.
    func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }
}
