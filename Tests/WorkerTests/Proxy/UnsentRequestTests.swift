import Testing

@testable import Worker

/// Requests that were given to a connection in the very turn in which its end is read: nothing of them has left.
@Suite struct UnsentRequestTests {
    private static let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    private static let goaway: [UInt8] = [0, 0, 8, 7, 0, 0, 0, 0, 0] + [0, 0, 0, 1] + [0, 0, 0, 0]
    private let backend = LocalListener()

    private func stage() -> WorkerStage {
        WorkerStage(backend: backend) { $0.backends[0].isHTTP2 = true }
    }

    /// Takes turns until the client has an answer.
    private func answer(_ client: LocalPeer, _ stage: WorkerStage, _ peers: inout [HTTP2Peer]) -> String {
        let isAnswered = stage.turns {
            if let peer = HTTP2Peer(accepting: backend) { peers.append(peer) }
            for peer in peers where !peer.isEnded { peer.look() }
            return client.hasReceived("\r\n\r\n")
        }
        defer { client.forget() }
        return isAnswered ? String(client.received.prefix(12)) : "nothing"
    }

    @Test(arguments: [goaway, []])
    func requestThatHasNotLeftIsSentAgain(last: [UInt8]) {
        let stage = stage()
        let client = stage.client()
        var peers: [HTTP2Peer] = []
        client.send(Self.request)
        #expect(answer(client, stage, &peers) == "HTTP/1.1 200")
        stage.settle()
        client.send(Self.request)
        peers[0].send(last)
        peers[0].hangUp()
        #expect(answer(client, stage, &peers) == "HTTP/1.1 200")
        #expect(peers.map(\.streamIDs) == [[1], [1]])
        #expect(stage.proxy.endpoints[0].health.failures == 0)
    }

    /// What ends each connection before a request can leave on it is a failure of the backend.
    @Test func backendThatEndsFreshConnectionsIsBlamed() {
        let stage = stage()
        let client = stage.client()
        client.send(Self.request)
        var peers: [HTTP2Peer] = []
        #expect(
            stage.turns {
                if let peer = HTTP2Peer(accepting: backend) {
                    peer.send([0, 0, 0, 4, 0, 0, 0, 0, 0])
                    peer.hangUp()
                    peers.append(peer)
                }
                return client.hasReceived("\r\n\r\n")
            })
        #expect(client.received.hasPrefix("HTTP/1.1 502"))
        #expect(peers.count == 3)
        #expect(stage.proxy.endpoints[0].health.failures == 3)
    }
}
