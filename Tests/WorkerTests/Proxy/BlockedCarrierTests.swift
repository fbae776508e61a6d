import Testing

@testable import Worker

/// Connections that carry streams, over a transport that holds bytes back while its socket is full, as TLS does.
@Suite struct BlockedCarrierTests {
    private let backend = LocalListener()
    private let transport = ScriptedTransport()
    private static let body = String(repeating: "x", count: 60_000)
    private static let writable = Readiness(
        isReadable: false, isWritable: true, peerFinished: false, isBroken: false, hasError: false)
    /// GET / on a first stream.
    private static let request =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0\0\0\u{4}\0\0\0\0\0"
        + "\0\0\u{11}\u{1}\u{5}\0\0\0\u{1}" + "\u{2}\u{3}GET\u{6}\u{4}http\u{4}\u{1}/\u{1}\u{1}h"

    /// How much of the body has gone on.
    private var bodyBytes: Int { transport.sent.count { $0 == UInt8(ascii: "x") } }

    @Test func framesForAClientGoOnOnceThereIsRoom() throws {
        let stage = WorkerStage(backend: backend)
        let client = stage.client()
        client.send(Self.request)
        let peer = try #require(stage.peer(of: backend, receives: "GET / "))
        let carrier = try #require(stage.proxy.downstreams.occupants.first { $0.session != nil })
        transport.isOpen = false
        carrier.transport = transport
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n\(Self.body)")
        #expect(stage.turns { stage.proxy.downstreamDeadlines.armed(carrier) == .clientStall })
        #expect(bodyBytes == 0 && carrier.output == nil, "the rest waits in the session")

        transport.isOpen = true
        carrier.noticed(Self.writable)
        stage.proxy.downstreamEvent(carrier, Self.writable)
        stage.settle()
        #expect(bodyBytes == 60_000)
        #expect(stage.proxy.downstreamDeadlines.armed(carrier) == .keepAlive, "nobody waits for the client any more")
    }

    @Test func framesForABackendGoOnOnceThereIsRoom() throws {
        let stage = WorkerStage(backend: backend) { $0.backends[0].isHTTP2 = true }
        let client = stage.client()
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        var peer: HTTP2Peer?
        #expect(
            stage.turns {
                if peer == nil { peer = HTTP2Peer(accepting: backend) }
                peer?.look()
                return client.hasReceived("HTTP/1.1 200")
            })
        let carrier = try #require(stage.proxy.upstreams.occupants.first { $0.session != nil })
        transport.isOpen = false
        carrier.transport = transport
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n\(Self.body)")
        #expect(stage.turns { transport.hasBacklog })
        stage.settle()
        #expect(bodyBytes == 0 && carrier.output == nil, "the rest waits in the session")

        transport.isOpen = true
        carrier.noticed(Self.writable)
        stage.proxy.upstreamEvent(carrier, Self.writable)
        stage.settle()
        #expect(bodyBytes == 60_000)
    }

    /// Readiness for both directions comes together, so it must cost nothing where nothing waits.
    @Test func roomChangesNothingWhereNothingWaits() throws {
        let stage = WorkerStage(backend: backend)
        let client = stage.client()
        client.send(Self.request)
        #expect(stage.turns { stage.proxy.downstreams.occupants.contains { $0.session != nil } })
        stage.settle()
        let carrier = try #require(stage.proxy.downstreams.occupants.first { $0.session != nil })
        carrier.noticed(Self.writable)
        stage.proxy.downstreamEvent(carrier, Self.writable)
        #expect(carrier.session?.isMarkedDirty == false)
    }
}
