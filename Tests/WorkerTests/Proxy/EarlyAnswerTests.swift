import Testing

@testable import Worker

/// Clients over HTTP/2 whose requests are answered before they have ended: how long the rest is waited for.
@Suite struct EarlyAnswerTests {
    private let backend = LocalListener()
    /// POST / on a first stream, whose body comes later.
    private static let request =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0\0\0\u{4}\0\0\0\0\0"
        + "\0\0\u{12}\u{1}\u{4}\0\0\0\u{1}" + "\u{2}\u{4}POST\u{6}\u{4}http\u{4}\u{1}/\u{1}\u{1}h"
    private static let reset = "\0\0\u{4}\u{3}\0\0\0\0\u{1}\0\0\0\0"
    private static let end = "\0\0\0\0\u{1}\0\0\0\u{1}"

    private func stage(discardNs: UInt64) -> WorkerStage {
        WorkerStage(backend: backend) { $0.timeouts.discardNs = discardNs }
    }

    /// A client that has its whole answer and has not ended its request.
    private func answeredClient(_ stage: WorkerStage) throws -> LocalPeer {
        let client = stage.client()
        client.send(Self.request)
        let peer = try #require(stage.peer(of: backend, receives: "POST / "))
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
        #expect(stage.turns { client.hasReceived("\0\0\u{5}\0\u{1}\0\0\0\u{1}early") })
        return client
    }

    @Test func whoDoesNotEndTheRequestIsToldToStop() throws {
        let stage = stage(discardNs: 20_000_000)
        let client = try answeredClient(stage)
        #expect(stage.turns { client.hasReceived(Self.reset) })
        #expect(!client.isEnded, "the connection goes on")
        #expect(stage.turns { stage.proxy.downstreams.occupants[0].session?.streams.isEmpty ?? false })
    }

    @Test func whoEndsTheRequestIsNot() throws {
        let stage = stage(discardNs: 60_000_000_000)
        let client = try answeredClient(stage)
        stage.settle()
        #expect(!client.hasReceived(Self.reset))
        client.send(Self.end)
        let carrier = stage.proxy.downstreams.occupants[0]
        #expect(stage.turns { carrier.session?.streams.isEmpty ?? false })
        #expect(!client.hasReceived(Self.reset))
        stage.settle()
        #expect(stage.proxy.downstreamDeadlines.armed(carrier) == .keepAlive)
    }

    /// A turn takes time, and its deadlines are held against the end of it.
    @Test func timeThatPassesWithinATurnCounts() throws {
        let stage = stage(discardNs: 60_000_000_000)
        let client = try answeredClient(stage)
        let carrier = stage.proxy.downstreams.occupants[0]
        #expect(stage.turns { stage.proxy.downstreamDeadlines.armed(carrier) == .discard })
        stage.proxy.nowNs += 61_000_000_000
        stage.proxy.carrierExpired(carrier, .discard)
        #expect(carrier.session?.discarding.isEmpty ?? false)
        #expect(client.hasReceived(Self.reset))
    }

    @Test func drainDoesNotWaitForLong() throws {
        let stage = stage(discardNs: 20_000_000)
        let client = try answeredClient(stage)
        stage.master.send(.drain)
        stage.settle()
        // PING is echoed, so the last GOAWAY follows.
        client.send("\0\0\u{8}\u{6}\u{1}\0\0\0\0\0\0\0\0\0\0\0\0")
        #expect(stage.turns { client.hasEnded })
        client.close()
        #expect(stage.turns { stage.proxy.drainIsDone() })
    }
}
