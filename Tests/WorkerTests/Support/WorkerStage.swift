import Glibc
import Logging
import ShmRing

@testable import Worker

/// A worker whose turns a test takes one by one: between two of them nothing happens. Its clients and its backend are
/// sockets of the same test.
/// Unsafe: socket calls on arrays and addresses.
final class WorkerStage {
    let proxy: Proxy
    let master: ControlChannel
    private let control: ControlChannel
    private let termination: SignalDescriptor
    private let listener: LocalListener

    /// - Parameters:
    ///   - backend: Where requests go.
    ///   - listener: What the worker accepts from; else one of its own.
    ///   - inbox: The read end that it inherits.
    init(
        backend: LocalListener, listener: LocalListener? = nil, inbox: Int32? = nil, drainNs: UInt64 = 10_000_000_000,
        segment: SpanSegment? = nil, adjust: (inout WorkerConfiguration) -> Void = { _ in }
    ) {
        self.listener = listener ?? LocalListener()
        var configuration = WorkerConfiguration(backends: [
            .init(name: "127.0.0.1:\(backend.port)", hostname: nil, addresses: [backend.address])
        ])
        configuration.timeouts.drainNs = drainNs
        configuration.isTracing = segment != nil
        adjust(&configuration)
        do {
            let pair = try ControlChannel.makePair()
            master = ControlChannel(owning: pair.master)
            control = ControlChannel(owning: pair.child)
            termination = try SignalDescriptor()
            proxy = try Proxy(
                configuration,
                WorkerInheritance(
                    slot: 0, listeners: [self.listener.descriptor], control: pair.child, generation: 1,
                    segment: segment, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, inbox: inbox))
            try proxy.poller.addReadable(control.descriptor, token: EventToken(kind: .control, slot: 0))
        } catch {
            fatalError("\(error)")
        }
        proxy.updateAccepting()
    }

    /// Connections that are still open, their exchanges and their sessions refer to one another.
    deinit {
        for connection in proxy.downstreams.occupants {
            connection.exchange?.downstream = nil
            connection.exchange = nil
            part(connection.session)
            connection.session = nil
        }
        for connection in proxy.upstreams.occupants {
            connection.exchange?.upstream = nil
            connection.exchange = nil
            part(connection.session)
            connection.session = nil
        }
        proxy.http2.forEachDirty { _ in }
    }

    private func part(_ session: HTTP2Session?) {
        guard let session else { return }
        session.closeAll(code: .cancel)
        while let stream = session.nextTouched() {
            session.forget(stream)
            stream.downstream = nil
            stream.upstream = nil
        }
        session.downstream = nil
        session.upstream = nil
    }

    /// Takes turns until `condition` holds, for some seconds at most.
    /// - Returns: Whether it does.
    func turns(until condition: () -> Bool) -> Bool {
        for _ in 0..<2000 {
            if condition() { return true }
            proxy.turn(control, termination, waitMs: 3)
        }
        return condition()
    }

    /// Takes turns until nothing happens any more that does not wait for somebody.
    func settle() {
        for _ in 0..<12 { proxy.turn(control, termination, waitMs: 2) }
    }

    func client() -> LocalPeer { listener.connect() }

    /// Takes turns until `text` has come to a backend.
    /// - Parameter known: The connection on which it is to come; else the next that is made.
    /// - Returns: That connection, nil when nothing came.
    func peer(of backend: LocalListener, receives text: String, on known: LocalPeer? = nil) -> LocalPeer? {
        var peer = known
        let hasCome = turns {
            if peer == nil { peer = backend.accept() }
            return peer?.hasReceived(text) ?? false
        }
        return hasCome ? peer : nil
    }
}

/// A listening TCP socket on the loopback interface.
final class LocalListener {
    let descriptor: Int32
    let address: SocketAddress

    init() {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        let result = unsafe SocketAddress(ip: "127.0.0.1", port: 0)!.withSockaddr { unsafe bind(fd, $0, $1) }
        guard result == 0, listen(fd, 512) == 0 else { fatalError("\(Errno.last)") }
        descriptor = fd
        address = unsafe SocketAddress { _ = unsafe getsockname(fd, $0, $1) }
    }

    deinit { close(descriptor) }

    var port: UInt16 { address.port ?? 0 }

    func connect() -> LocalPeer {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard unsafe address.withSockaddr({ unsafe Glibc.connect(fd, $0, $1) }) == 0 else {
            fatalError("\(Errno.last)")
        }
        return LocalPeer(fd)
    }

    /// The next connection, nil when none waits.
    func accept() -> LocalPeer? {
        let fd = Glibc.accept(descriptor, nil, nil)
        return fd >= 0 ? LocalPeer(fd) : nil
    }
}

/// One end of a connection that never blocks.
final class LocalPeer {
    private var descriptor: Int32
    private(set) var received = ""
    private(set) var isEnded = false
    private(set) var isReset = false

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    deinit { close() }

    func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        _ = unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// Reads what is there, and whether the other side has ended.
    func look() {
        var piece = [UInt8](repeating: 0, count: 65536)
        while descriptor >= 0, !isEnded {
            let count = unsafe recv(descriptor, &piece, piece.count, 0)
            if count < 0 && errno == EAGAIN { return }
            isEnded = count <= 0
            isReset = count < 0
            received += String(decoding: piece.prefix(max(0, count)), as: UTF8.self)
        }
    }

    func hasReceived(_ text: String) -> Bool {
        look()
        return received.contains(text)
    }

    /// Whether the other side has ended, in order or not.
    var hasEnded: Bool {
        look()
        return isEnded
    }

    func forget() {
        look()
        received = ""
    }
}
