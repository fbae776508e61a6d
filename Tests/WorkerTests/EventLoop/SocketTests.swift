import Glibc
import ShmRing
import Testing

@testable import Worker

@Suite struct SocketTests {
    @Test func aConnectionToAListenerIsAccepted() throws {
        let listener = try Listener()
        let client = try #require(Self.descriptor(Socket.connect(listener.address)))
        defer { close(client) }
        let (server, peer) = try listener.accept()
        defer { close(server) }
        #expect(peer.ip == "127.0.0.1")
        #expect(Socket.pendingError(client) == nil)
    }

    @Test func nobodyWaitingIsNoError() throws {
        let listener = try Listener()
        guard case .none = Socket.accept(listener.descriptor) else { return #expect(Bool(false), "somebody came") }
    }

    @Test func aRefusedConnectionIsTold() throws {
        let address = try Listener().address
        switch Socket.connect(address) {
        case .connected: #expect(Bool(false), "connected to nobody")
        case .failed(let error): #expect(error == Errno(ECONNREFUSED))
        case .inProgress(let descriptor):
            defer { close(descriptor) }
            var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            _ = unsafe poll(&wait, 1, -1)
            #expect(Socket.pendingError(descriptor) == Errno(ECONNREFUSED))
        }
    }

    @Test func aUnixSocketThatIsNotThereIsTold() throws {
        let address = try #require(SocketAddress(unixPath: "/nonexistent/socket"))
        guard case .failed(let error) = Socket.connect(address) else { return #expect(Bool(false), "connected") }
        #expect(error == Errno(ENOENT))
    }

    @Test func resetOnCloseIsAResetForThePeer() throws {
        let listener = try Listener()
        let client = try #require(Self.descriptor(Socket.connect(listener.address)))
        defer { close(client) }
        let (server, _) = try listener.accept()
        Socket.resetOnClose(server)
        close(server)
        var wait = pollfd(fd: client, events: Int16(POLLIN), revents: 0)
        _ = unsafe poll(&wait, 1, -1)
        #expect(ByteBuffer(capacity: 8).receive(from: client) == .failed(Errno(ECONNRESET)))
    }

    @Test func finishingEndsOneDirectionOnly() throws {
        let peer = ScriptedPeer()
        let buffers = BufferPool()
        Socket.finishSending(peer.connection.descriptor)
        peer.send("still heard")
        peer.deliverEvents()
        #expect(peer.connection.receive(buffers) == .bytes(11))
    }

    private static func descriptor(_ outcome: Socket.ConnectOutcome) -> Int32? {
        switch outcome {
        case .connected(let descriptor), .inProgress(let descriptor): descriptor
        case .failed: nil
        }
    }
}

/// A listening socket on an ephemeral loopback port. Unsafe: socket calls.
private final class Listener {
    let descriptor: Int32
    let address: SocketAddress

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        let any = try #require(SocketAddress(ip: "127.0.0.1", port: 0))
        let socket = descriptor
        let bound = unsafe any.withSockaddr { unsafe bind(socket, $0, $1) }
        try #require(bound == 0 && listen(socket, 8) == 0)
        unsafe address = SocketAddress { unsafe getsockname(socket, $0, $1) }
    }

    deinit { close(descriptor) }

    func accept() throws -> (Int32, SocketAddress) {
        var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        _ = unsafe poll(&wait, 1, -1)
        guard case .accepted(let accepted, let peer) = Socket.accept(descriptor) else { throw Errno.last }
        return (accepted, peer)
    }
}
