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

    /// A stream's objects wait for the next one once the turn in which it ended is over.
    @Test func objectsOfStreamsAreUsedAgain() throws {
        let stage = stage()
        let client = stage.client()
        var peers: [HTTP2Peer] = []
        for _ in 0..<3 { #expect(serve(client, stage, &peers)) }
        stage.settle()
        #expect(stage.proxy.http2.freeStreams.count == 1)
        #expect(stage.proxy.streamObjects.freeCount == 1)
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

    /// Its GOAWAY cannot be written, and whatever the server goes on to send does not help.
    @Test func idleConnectionWhoseServerDoesNotReadIsLeftAllTheSame() throws {
        let stage = stage {
            $0.timeouts.upstreamIdleNs = 20_000_000
            $0.timeouts.pingAnswerNs = 60_000_000_000
        }
        let client = stage.client()
        var peers: [HTTP2Peer] = []
        #expect(serve(client, stage, &peers))
        let slot = try #require(carrier(stage))
        let connection = try #require(stage.proxy.upstreams.occupant(slot))
        let transport = ScriptedTransport()
        transport.room = 0
        connection.transport = transport
        #expect(stage.turns { connection.session?.isBlocked ?? false })
        let deadlines = stage.proxy.upstreamDeadlines
        #expect(deadlines.armed(connection) == .leaving)

        let ping: [UInt8] = [0, 0, 8, 6, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 8)
        transport.receipts = [.bytes(ping, isDrained: true)]
        let readable = Readiness(
            isReadable: true, isWritable: false, peerFinished: false, isBroken: false, hasError: false)
        connection.noticed(readable)
        stage.proxy.upstreamEvent(connection, readable)
        stage.settle()
        #expect(transport.receipts.isEmpty)
        #expect(deadlines.armed(connection) == .leaving)
        stage.proxy.upstreamCarrierExpired(connection, .leaving)
        #expect(connection.isClosed && carrier(stage) == nil)
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

    /// A response that has wholly come and waits for its client outlives the connection that it came on.
    @Test func slowClientOfALostConnectionIsNotCountedOnTheNext() throws {
        let stage = stage()
        let slow = stage.client()
        slow.send(Self.http2Request)
        let lost = try #require(silentPeer(stage))
        let slot = try #require(carrier(stage))
        lost.send([0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88])
        for index in 0..<12 {
            lost.send([0, 0x40, 0, 0, index == 11 ? 1 : 0, 0, 0, 0, 1] + [UInt8](repeating: 0x78, count: 16384))
            stage.settle()
        }
        lost.hangUp()
        #expect(stage.turns { carrier(stage) == nil })

        let held = stage.client()
        held.send(Self.request)
        let next = try #require(silentPeer(stage))
        #expect(carrier(stage) == slot, "the next connection has the place of the lost one")
        slow.send("\0\0\u{4}\u{8}\0\0\0\0\0\0\u{10}\0\0\0\0\u{4}\u{8}\0\0\0\0\u{1}\0\u{10}\0\0")
        #expect(
            stage.turns {
                slow.look(); return slow.received.utf8.count { $0 == 0x78 } >= 12 * 16384
            })
        stage.settle()
        #expect(stage.proxy.endpoints[0].http2Pool.streams(on: slot) == 1)
        next.send([0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88])
        #expect(stage.turns { held.hasReceived("HTTP/1.1 200") })
    }

    /// GET / over HTTP/2, from a client that takes no body for now.
    private static let http2Request =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0\0\u{6}\u{4}\0\0\0\0\0" + "\0\u{4}\0\0\0\0"
        + "\0\0\u{11}\u{1}\u{5}\0\0\0\u{1}" + "\u{2}\u{3}GET\u{6}\u{4}http\u{4}\u{1}/\u{1}\u{1}h"

    /// A connection on which a request has come, and is not answered.
    private func silentPeer(_ stage: WorkerStage) -> HTTP2Peer? {
        var peer: HTTP2Peer?
        let isServed = stage.turns {
            if peer == nil { peer = HTTP2Peer(accepting: backend) }
            peer?.answers = false
            peer?.look()
            return peer?.streamIDs == [1]
        }
        return isServed ? peer : nil
    }

    /// The slot of the connection that carries streams.
    private func carrier(_ stage: WorkerStage) -> Int? {
        stage.proxy.upstreams.occupants.first { $0.session != nil }?.slot
    }
}
