import Glibc
import ShmRing

@testable import Worker

/// A client's and a server's session at the two ends of a socket pair.
/// Unsafe: socket calls.
final class TLSPair {
    let server: TLSSession
    let client: TLSSession
    private let descriptors: [Int32]
    private var isClosed = false

    /// - Parameters:
    ///   - name: Whom the client asks for and what it expects.
    ///   - roomBytes: About what the kernel holds in each direction.
    init(
        _ serverSide: TLSServer, _ clientSide: TLSClient, name: String = "a.test", isAddress: Bool = false,
        memory: SessionMemory = SessionMemory(), roomBytes: Int32? = nil
    ) {
        descriptors = Self.pair(roomBytes)
        server = serverSide.session(descriptor: descriptors[0])
        client = clientSide.session(descriptor: descriptors[1], name: name, isAddress: isAddress, memory: memory)
    }

    deinit { close() }

    static func pair(_ roomBytes: Int32? = nil) -> [Int32] {
        var pair: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard unsafe socketpair(AF_UNIX, type, 0, &pair) == 0 else { fatalError("socketpair: \(Errno.last)") }
        if var room = roomBytes {
            for end in pair {
                unsafe setsockopt(end, SOL_SOCKET, SO_SNDBUF, &room, socklen_t(MemoryLayout<Int32>.size))
            }
        }
        return pair
    }

    /// Goes on with both sides until they are done or one has failed.
    /// - Returns: What the client and the server came to.
    @discardableResult
    func shakeHands() -> (client: TLSSession.HandshakeOutcome, server: TLSSession.HandshakeOutcome) {
        var outcomes = (client: TLSSession.HandshakeOutcome.wouldBlock, server: TLSSession.HandshakeOutcome.wouldBlock)
        for _ in 0..<20 {
            if outcomes.client == .wouldBlock { outcomes.client = client.handshake() }
            if outcomes.server == .wouldBlock { outcomes.server = server.handshake() }
            if outcomes.client != .wouldBlock, outcomes.server != .wouldBlock { break }
        }
        return outcomes
    }

    /// What one side reads now.
    static func receive(_ session: TLSSession) -> (text: String, last: IOResult) {
        let buffer = ByteBuffer(capacity: 1 << 20)
        while true {
            let result = session.receive(into: buffer)
            guard case .bytes = result else { return (buffer.text, result) }
        }
    }

    /// Ends the server's side without a word.
    func cutServer() { _ = shutdown(descriptors[0], Int32(SHUT_WR)) }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        if server.state != .closed { server.close(isReset: false) }
        if client.state != .closed { client.close(isReset: false) }
        descriptors.forEach { Glibc.close($0) }
    }

    /// Settings for a server with these certificates.
    static func server(
        _ names: String..., tickets: TicketKeys = TicketKeys(), change: (inout TLSServerSettings) -> Void = { _ in }
    ) throws -> TLSServer {
        var settings = TLSServerSettings(certificates: names.map { TestCertificates.shared.files($0) })
        change(&settings)
        return try TLSServer(settings, tickets: tickets)
    }

    /// Settings for a client that trusts the tests' CA.
    static func client(change: (inout TLSClientSettings) -> Void = { _ in }) throws -> TLSClient {
        var settings = TLSClientSettings()
        settings.caPath = TestCertificates.shared.caPath
        change(&settings)
        return try TLSClient(settings)
    }
}
