import CShims
import ShmRing
import Testing

@testable import Worker

/// What takes too long to be waited for in front of a real backend.
/// Unsafe: reaches into libnghttp2.
@Suite struct HTTP2UpstreamTests {
    private let backend = LocalListener()
    private static let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

    private func stage(_ adjust: (inout WorkerConfiguration) -> Void = { _ in }) -> WorkerStage {
        WorkerStage(backend: backend) {
            $0.backends[0].isHTTP2 = true
            adjust(&$0)
        }
    }

    /// Takes turns with whatever peers there are until the client has its answer.
    private func serve(_ client: LocalPeer, _ stage: WorkerStage, _ peers: inout [HTTP2Peer]) -> Bool {
        client.send(Self.request)
        defer { client.forget() }
        return stage.turns {
            if let peer = HTTP2Peer(accepting: backend) { peers.append(peer) }
            for peer in peers { peer.look() }
            return client.hasReceived("HTTP/1.1 200")
        }
    }

    @Test func connectionWhoseStreamNumbersRunOutIsLeft() throws {
        let stage = stage()
        let client = stage.client()
        var peers: [HTTP2Peer] = []
        #expect(serve(client, stage, &peers))
        #expect(peers.count == 1)
        let carriers = (0..<8).compactMap { stage.proxy.upstreams.occupant($0)?.session }
        let session = try #require(carriers.first)
        #expect(!session.isShortOfStreams)
        #expect(unsafe nghttp2_session_set_next_stream_id(session.raw, (1 << 30) + 1) == 0)
        for _ in 0..<3 { #expect(serve(client, stage, &peers)) }
        #expect(peers.map(\.streamIDs) == [[1, (1 << 30) + 1], [1, 3]])
        #expect(
            stage.turns {
                peers[0].look(); return peers[0].isEnded
            })
    }

    @Test func backendThatDoesNotAcknowledgeSettingsIsLeft() throws {
        let stage = stage { $0.timeouts.settingsAnswerNs = 20_000_000 }
        let client = stage.client()
        client.send(Self.request)
        var peer: HTTP2Peer?
        #expect(
            stage.turns {
                if peer == nil {
                    peer = HTTP2Peer(accepting: backend)
                    peer?.send([0, 0, 0, 4, 0, 0, 0, 0, 0])
                }
                _ = peer?.read()
                return client.hasReceived("HTTP/1.1 504") && peer?.isEnded ?? false
            })
        let goaway: [UInt8] = [0, 0, 8, 7, 0, 0, 0, 0, 0] + [0, 0, 0, 0] + [0, 0, 0, 4]
        let bytes = try #require(peer).bytes
        #expect(bytes.suffix(goaway.count).elementsEqual(goaway))
    }

    @Test func deadPeerIsFoundByAPing() throws {
        let stage = stage {
            $0.timeouts.upstreamPingNs = 20_000_000
            $0.timeouts.pingAnswerNs = 20_000_000
        }
        let client = stage.client()
        client.send(Self.request)
        var peer: HTTP2Peer?
        #expect(
            stage.turns {
                if peer == nil { peer = HTTP2Peer(accepting: backend) }
                peer?.answers = false
                // Once the request is there, nothing is answered any more.
                if peer?.streamIDs.isEmpty ?? false { peer?.look() }
                return client.hasReceived("HTTP/1.1 504")
            })
        let silent = try #require(peer)
        #expect(
            stage.turns {
                _ = silent.read(); return silent.isEnded
            })
        let ping: [UInt8] = [0, 0, 8, 6, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 8)
        #expect(silent.bytes.indices.contains { silent.bytes[$0...].starts(with: ping) })
    }

    @Test func acknowledgementInTimeIsAllThatIsAskedFor() {
        let stage = stage { $0.timeouts.settingsAnswerNs = 20_000_000 }
        let client = stage.client()
        var peers: [HTTP2Peer] = []
        #expect(serve(client, stage, &peers))
        for _ in 0..<8 {
            stage.settle()
            peers[0].look()
        }
        #expect(!peers[0].isEnded)
        #expect(serve(client, stage, &peers))
        #expect(peers.count == 1)
    }
}
