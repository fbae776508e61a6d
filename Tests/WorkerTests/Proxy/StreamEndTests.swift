import Testing

@testable import Worker

/// A response is whole and its stream is not: the place that it has on its connection.
@Suite struct StreamEndTests {
    private static let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    private static let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    /// One stream at a time.
    private static let settings = RawFrames.frame(.settings, [0, 3, 0, 0, 0, 1])
    /// 200 with `content-length: 2`.
    private static let head = RawFrames.frame(
        .headers, flags: RawFrames.endHeaders, stream: 1, [0x88, 0x0F, 0x0D, 0x01, 0x32])
    private static let body = RawFrames.frame(.data, stream: 1, [0x6F, 0x6B])
    private static let end = RawFrames.frame(.data, flags: RawFrames.endStream, stream: 1)
    private static let cancel = RawFrames.frame(.reset, stream: 1, [0, 0, 0, 8])

    private let backend = LocalListener()

    private func stage(endNs: UInt64 = 60_000_000_000) -> WorkerStage {
        WorkerStage(backend: backend) {
            $0.backends[0].isHTTP2 = true
            $0.timeouts.streamEndNs = endNs
        }
    }

    /// A connection on which a request has come.
    private func requested(_ stage: WorkerStage, settings: [UInt8] = settings) -> HTTP2Peer? {
        var peer: HTTP2Peer?
        let isServed = stage.turns {
            if peer == nil {
                peer = HTTP2Peer(accepting: backend)
                peer?.send(settings)
            }
            _ = peer?.read()
            return peer.map { Self.hasRequest($0.bytes) } ?? false
        }
        return isServed ? peer : nil
    }

    /// HEADERS of stream 1 are among the frames.
    private static func hasRequest(_ bytes: [UInt8]) -> Bool {
        bytes.contains([1, 4, 0, 0, 0, 1]) || bytes.contains([1, 5, 0, 0, 0, 1])
    }

    private func streams(_ stage: WorkerStage) -> [Int] {
        stage.proxy.upstreams.occupants.filter { $0.session != nil }.map {
            $0.endpoint.http2Pool.streams(on: $0.slot)
        }
    }

    @Test func placeIsTakenUntilTheEndIsThere() throws {
        let stage = stage()
        let client = stage.client()
        client.send(Self.get)
        let first = try #require(requested(stage))
        first.send(Self.head + Self.body)
        #expect(stage.turns { client.hasReceived("\r\n\r\nok") })
        stage.settle()
        #expect(streams(stage) == [1])

        // The next request does not wait behind it.
        client.send(Self.get)
        let second = try #require(requested(stage))
        second.send(Self.head + Self.body + Self.end)
        #expect(
            stage.turns {
                client.look(); return client.received.ranges(of: "\r\n\r\nok").count == 2
            })

        first.send(Self.end)
        #expect(stage.turns { streams(stage) == [0, 0] })
        _ = first.read()
        #expect(!first.bytes.contains(Self.cancel))
        #expect(!second.bytes.contains(Self.cancel))
    }

    @Test func streamWhoseEndDoesNotComeIsReset() throws {
        let stage = stage(endNs: 20_000_000)
        let client = stage.client()
        client.send(Self.get)
        let peer = try #require(requested(stage))
        peer.send(Self.head + Self.body)
        #expect(stage.turns { client.hasReceived("\r\n\r\nok") })
        #expect(
            stage.turns {
                _ = peer.read(); return peer.bytes.contains(Self.cancel)
            })
        #expect(streams(stage) == [0])
        #expect(stage.proxy.upstreams.occupants.count { $0.stream != nil } == 0)
    }

    /// The connection may be left as soon as its last stream is over, and not before.
    @Test func connectionThatIsBeingLeftWaitsForTheEnd() throws {
        let stage = stage()
        let client = stage.client()
        client.send(Self.get)
        let peer = try #require(requested(stage))
        peer.send(Self.head + Self.body + RawFrames.frame(.goaway, [0, 0, 0, 1, 0, 0, 0, 0]))
        #expect(stage.turns { client.hasReceived("\r\n\r\nok") })
        stage.settle()
        #expect(streams(stage) == [1])
        peer.send(Self.end)
        #expect(
            stage.turns {
                _ = peer.read(); return peer.isEnded
            })
        #expect(!peer.bytes.contains(Self.cancel))
    }

    @Test func requestThatCannotLeaveAnyMoreIsReset() throws {
        let stage = stage()
        let client = stage.client()
        client.send(Self.post)
        let withoutWindow = RawFrames.frame(.settings, [0, 3, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0])
        let peer = try #require(requested(stage, settings: withoutWindow))
        peer.send(Self.head + RawFrames.frame(.data, flags: RawFrames.endStream, stream: 1, [0x6F, 0x6B]))
        #expect(stage.turns { client.hasReceived("\r\n\r\nok") })
        #expect(
            stage.turns {
                _ = peer.read(); return peer.bytes.contains(Self.cancel)
            })
        #expect(streams(stage) == [0])
    }
}
