import Glibc
import ShmRing
import Testing

@testable import Worker

/// Connections to a backend that speaks HTTP/1.1, from connect to close, as a whole worker traces them.
@Suite struct ConnectionLifeTests {
    private let backend = LocalListener()
    private let segment: SpanSegment
    private static let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    init() throws {
        segment = try SpanSegment(ringCount: 1, ringBytesMin: 1 << 20, generation: 1, masterPID: 1)
    }

    private func stage(_ adjust: @escaping (inout WorkerConfiguration) -> Void = { _ in }) -> WorkerStage {
        WorkerStage(backend: backend, segment: segment, adjust: adjust)
    }

    /// Every trace in the ring so far.
    private func pictures() -> [TracePicture] {
        var consumer = segment.consumer()
        var found: [TracePicture] = []
        while let (picture, _) = consumer.next(slot: 0, { TracePicture($0) }) {
            if let picture { found.append(picture) }
        }
        return found
    }

    private func connections() -> [TracePicture] { pictures().filter { $0.spans[0].name == "upstream_connection" } }
    private func requests() -> [TracePicture] { pictures().filter { $0.spans[0].name == "proxy_request" } }

    /// The backend's end of a connection that has brought a request for `target`.
    private func backendGets(_ target: String, from stage: WorkerStage, on known: LocalPeer? = nil) throws -> LocalPeer
    {
        try #require(stage.peer(of: backend, receives: "GET \(target) ", on: known))
    }

    private func send(_ client: LocalPeer, _ target: String, _ fields: String = "") {
        client.send("GET \(target) HTTP/1.1\r\nHost: h\r\n\(fields)\r\n")
    }

    private func reason(_ picture: TracePicture) -> String? {
        picture.lines.first { $0.contains("close_reason") }?.split(separator: "\"").last.map(String.init)
    }

    @Test func requestsOnOneConnectionLinkToItsTrace() throws {
        let stage = stage()
        let client = stage.client()
        var server: LocalPeer?
        for target in ["/a", "/b", "/c"] {
            send(client, target)
            server = try backendGets(target, from: stage, on: server)
            server?.send(Self.answer)
            #expect(stage.turns { client.hasReceived("ok") })
            client.forget()
        }
        #expect(connections().isEmpty)
        server?.close()
        #expect(stage.turns { connections().count == 1 })
        let connection = connections()[0]
        #expect(reason(connection) == "peer_closed")
        #expect(connection.lines[0].hasPrefix("upstream_connection INTERNAL 0-"))
        #expect(connection.lines.contains("| connection.requests_started = 3"))
        #expect(connection.lines.contains("| connection.requests_answered = 3"))
        #expect(connection.lines.contains { $0.hasPrefix("| connection.bytes_received = ") })
        #expect(connection.spans.map(\.name) == ["upstream_connection", "tcp_connect"])
        #expect(connection.misplaced.isEmpty)
        let links = requests().flatMap(\.spans).flatMap(\.links)
        #expect(links.count == 3)
        #expect(links.allSatisfy { $0.spanID == connection.spans[0].id && $0.traceIDLow == connection.traceIDLow })
        #expect(requests().count { $0.isRequestRecord } == 2)
    }

    /// What the backend answers, what it does then, and why the connection ends.
    private static let endings: [(answer: String, closes: Bool, reason: String, isError: Bool)] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", false, "connection_close", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", false, "protocol_error", true),
        ("HTTP/1.1 200 OK\r\n\r\nok", true, "connection_close", false),
        ("nonsense\r\n\r\n", false, "protocol_error", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", true, "peer_closed", true),
        ("", true, "peer_closed", true),
    ]

    @Test(arguments: endings.indices)
    func theEndOfAConnectionHasAReason(index: Int) throws {
        let ending = Self.endings[index]
        let stage = stage()
        let client = stage.client()
        send(client, "/")
        let server = try backendGets("/", from: stage)
        server.send(ending.answer)
        if ending.closes { server.close() }
        #expect(stage.turns { connections().count == 1 })
        let connection = connections()[0]
        #expect(reason(connection) == ending.reason)
        #expect(connection.lines[0].hasSuffix(" ERROR") == ending.isError)
        #expect(stage.turns { requests().count == 1 })
        #expect(requests()[0].spans.flatMap(\.links).map(\.spanID) == [connection.spans[0].id])
    }

    @Test func anIdleConnectionEndsByItsTimeout() throws {
        let stage = stage { $0.timeouts.upstreamIdleNs = 1_000_000 }
        let client = stage.client()
        send(client, "/")
        let server = try backendGets("/", from: stage)
        server.send(Self.answer)
        #expect(stage.turns { connections().count == 1 })
        #expect(reason(connections()[0]) == "idle_timeout")
        #expect(server.hasEnded)
    }

    @Test func aClientThatLeavesEndsTheConnection() throws {
        let stage = stage()
        let client = stage.client()
        send(client, "/")
        let server = try backendGets("/", from: stage)
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok")
        stage.settle()
        // With bytes that it has not read, so that this is a reset.
        client.close()
        #expect(stage.turns { connections().count == 1 })
        #expect(reason(connections()[0]) == "request_abandoned")
        #expect(!connections()[0].lines[0].hasSuffix(" ERROR"))
    }

    @Test func aRefusedConnectionHasATraceToo() throws {
        let address = SocketAddress(unixPath: "/nonexistent/no.socket")
        let stage = WorkerStage(backend: backend, segment: segment) { configuration in
            guard let address else { return }
            configuration.backends = [.init(name: "unix:/nonexistent", hostname: nil, addresses: [address])]
        }
        let client = stage.client()
        send(client, "/")
        #expect(stage.turns { client.hasReceived("502") })
        #expect(stage.turns { requests().count == 1 })
        let connection = try #require(connections().first)
        #expect(reason(connection) == "connect_failed")
        #expect(connection.spans.map(\.name) == ["upstream_connection", "tcp_connect"])
        #expect(requests()[0].span("backend_connection")?.links.map(\.spanID) == [connection.spans[0].id])
    }

    @Test func whatIsOpenAtTheEndIsWritten() throws {
        let stage = stage()
        let client = stage.client()
        send(client, "/")
        let server = try backendGets("/", from: stage)
        server.send(Self.answer)
        #expect(stage.turns { client.hasReceived("ok") })
        stage.settle()
        stage.proxy.recordOpenConnections()
        stage.proxy.recordOpenConnections()
        #expect(connections().map { reason($0) } == ["shutdown"])
        #expect(!server.hasEnded)
    }

    @Test func aConnectionOfUntracedRequestsIsNotWritten() throws {
        let stage = stage()
        let client = stage.client()
        send(client, "/", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n")
        let server = try backendGets("/", from: stage)
        server.send(Self.answer)
        #expect(stage.turns { client.hasReceived("ok") })
        stage.proxy.recordOpenConnections()
        #expect(pictures().isEmpty)
        #expect(!server.hasEnded)
    }

    @Test func turnedOffThereAreNeitherTracesNorLinks() throws {
        let stage = stage { $0.tracesConnections = false }
        let client = stage.client()
        send(client, "/")
        let server = try backendGets("/", from: stage)
        server.send(Self.answer)
        #expect(stage.turns { client.hasReceived("ok") })
        stage.settle()
        stage.proxy.recordOpenConnections()
        #expect(connections().isEmpty)
        #expect(requests().count == 1 && requests()[0].spans.allSatisfy { $0.links.isEmpty })
        #expect(!server.hasEnded)
    }
}
