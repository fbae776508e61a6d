import Testing

@testable import Worker

/// Windows of streams and of what waits, between two sessions, and the memory that all sessions share.
@Suite struct HTTP2WindowsTests {
    private static let kib = 1024

    private final class Upload {
        let client: HTTP2Stream
        let server: HTTP2Stream
        private let bytes: Int
        private var sent = 0

        /// Sends on a stream of its own as far as it goes while the server's side takes nothing.
        init(_ bytes: Int, _ pair: SessionPair) throws {
            self.bytes = bytes
            client = pair.request("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \(bytes)\r\n\r\n")
            server = try #require(pair.arrived.last)
            for _ in 0..<100 { send(pair) }
        }

        private func send(_ pair: SessionPair) {
            let count = min(16384, bytes - sent)
            if count > 0 { sent += count - pair.send(String(repeating: "x", count: count), on: client) }
        }

        /// Goes on while the server's side takes all.
        /// - Returns: Whether all of the body came.
        func isTaken(_ pair: SessionPair) -> Bool {
            for _ in 0..<1000 where !server.hasInboundEnded {
                _ = pair.text(server)
                pair.exchange()
                send(pair)
            }
            _ = pair.text(server)
            return server.bodyBytesTaken == bytes
        }
    }

    // Windows

    @Test func streamWhoseBytesAreTakenGetsALargerWindow() throws {
        let pair = SessionPair()
        let stream = try Upload(1000 * Self.kib, pair)
        #expect(pair.server.waitingBytes == 64 * Self.kib)
        #expect(pair.server.raisedBytes == 0)
        #expect(stream.isTaken(pair))
        #expect(pair.server.raisedBytes == 192 * Self.kib)
        pair.send("HTTP/1.1 204 No Content\r\n\r\n", on: stream.server)
        #expect(pair.server.raisedBytes == 0)
    }

    @Test func largerWindowsTogetherAreAQuarterOfTheConnections() throws {
        var limits = HTTP2Context.Limits()
        limits.connectionWindowBytes = 1024 * Self.kib
        let pair = SessionPair(limits)
        for _ in 0..<2 {
            let stream = try Upload(300 * Self.kib, pair)
            #expect(stream.isTaken(pair))
        }
        #expect(pair.server.raisedBytes == 192 * Self.kib)
    }

    /// Streams that nobody takes from, and one between them that is read.
    @Test func streamsThatNobodyReadsLeaveTheConnectionToTheOthers() throws {
        var limits = HTTP2Context.Limits()
        limits.connectionWindowBytes = 512 * Self.kib
        let pair = SessionPair(limits)
        let early = try Upload(2000 * Self.kib, pair)
        let stuck = try (0..<20).map { _ in try Upload(60 * Self.kib, pair) }
        #expect(pair.server.isTight)
        #expect(pair.server.waitingBytes <= 256 * Self.kib)
        let late = try Upload(2000 * Self.kib, pair)
        #expect(early.isTaken(pair))
        #expect(late.isTaken(pair))
        #expect(stuck.allSatisfy { !$0.server.isClosed })
    }

    @Test func sessionIsWideAgainOnceMostIsTaken() throws {
        var limits = HTTP2Context.Limits()
        limits.connectionWindowBytes = 512 * Self.kib
        let pair = SessionPair(limits)
        pair.server.context.nowNs = 1_000_000_000
        let streams = try (0..<4).map { _ in try Upload(60 * Self.kib, pair) }
        #expect(pair.server.isTight)
        for stream in streams { #expect(stream.isTaken(pair)) }
        #expect(pair.server.isTight)
        pair.server.context.nowNs += 3_000_000_000
        _ = try Upload(1, pair)
        #expect(!pair.server.isTight)
        _ = try Upload(60 * Self.kib, pair)
        #expect(pair.server.waitingBytes == 60 * Self.kib + 1)
    }

    // What a client leaves unread

    @Test func streamThatIsLeftWithItsBodyUnreadIsReset() throws {
        var limits = HTTP2Context.Limits()
        limits.firstWindowBytes = 0
        let pair = SessionPair(limits)
        let stream = pair.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        let server = try #require(pair.arrived.first)
        pair.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", on: server)
        #expect(!stream.isClosed && server.hasBacklog)
        server.close(isReset: true)
        pair.exchange()
        #expect(stream.isClosed && stream.wasResetByPeer)
        #expect(server.isClosed)
    }

    // Memory

    private static func small() -> HTTP2Context {
        var limits = HTTP2Context.Limits()
        limits.tightBytes = 120 * kib
        limits.shortBytes = 240 * kib
        limits.fullBytes = 360 * kib
        limits.firstWindowBytes = 256 * kib
        return HTTP2Context(limits, BufferPool())
    }

    @Test func lessIsReadWhereMoreIsHeld() {
        let context = Self.small()
        #expect(context.readSize == .large)
        context.held(121 * Self.kib)
        #expect(context.readSize == .medium)
        context.held(120 * Self.kib)
        #expect(context.readSize == .small)
        context.held(120 * Self.kib)
        #expect(context.scarcity == .full)
        // Only some way below does it become easier.
        context.held(-20 * Self.kib)
        #expect(context.scarcity == .full)
        context.held(-100 * Self.kib)
        #expect(context.scarcity == .short)
        context.held(-241 * Self.kib)
        #expect(context.scarcity == .plenty)
    }

    /// 200 KiB of DATA.
    private static func body(_ stream: Int) -> [UInt8] {
        let piece = [UInt8](repeating: 0, count: 16384)
        return Array(repeatElement(RawFrames.frame(.data, stream: stream, piece), count: 12).joined())
    }

    @Test func connectionOnWhichNothingMovesIsEnded() {
        let context = Self.small()
        context.nowNs = 1_000_000_000
        let server = RawServer(context)
        server.feed(RawFrames.request(1, ends: false) + Self.body(1))
        #expect(context.scarcity != .plenty && context.scarcity != .full)
        context.relieveMemory()
        #expect(server.session.patience.exhausted == nil)
        context.nowNs += 1_000_000_000
        context.relieveMemory()
        #expect(server.session.patience.exhausted == .memory)
        server.session.closeAll(code: .cancel)
    }

    @Test func connectionOnWhichSomethingMovesIsNot() throws {
        let context = Self.small()
        context.nowNs = 1_000_000_000
        let server = RawServer(context)
        server.feed(RawFrames.request(1, ends: false) + Self.body(1))
        let stream = try #require(server.arrived.first)
        _ = stream.receive(into: ByteBuffer(capacity: 4096))
        context.nowNs += 1_000_000_000
        context.relieveMemory()
        #expect(server.session.patience.exhausted == nil)
        #expect(context.scarcity != .plenty)
        server.session.closeAll(code: .cancel)
    }

    @Test func backendThatSendsMustWaitWhenThereIsNoMemory() {
        let context = Self.small()
        context.nowNs = 1_000_000_000
        let server = RawServer(context)
        server.feed(RawFrames.request(1, ends: false) + Self.body(1))
        #expect(!context.mustWait(server.session))
        context.held(200 * Self.kib)
        #expect(context.mustWait(server.session))
        // Nothing of this one's waits.
        #expect(!context.mustWait(RawServer(context).session))
        // Not for ever: others on the same connection have done nothing.
        context.nowNs += 1_000_000_000
        #expect(!context.mustWait(server.session))
        context.held(-300 * Self.kib)
        context.held(300 * Self.kib)
        #expect(context.mustWait(server.session))
        context.held(-200 * Self.kib)
        #expect(!context.mustWait(server.session))
        server.session.closeAll(code: .cancel)
    }

    /// The server has closed the stream, and its owner has not taken what came on it.
    @Test func whatAClosedStreamStillHoldsIsCounted() throws {
        let pair = SessionPair()
        let stream = pair.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        let server = try #require(pair.arrived.first)
        pair.send("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n", on: server)
        pair.send(String(repeating: "x", count: 50000), on: server)
        #expect(stream.isClosed)
        #expect(pair.client.context.heldBytes == 65536)
        #expect(pair.client.outboundBytes == 0 && pair.client.headBytes == 0)
        _ = pair.text(stream)
        #expect(pair.client.context.heldBytes == 0)
    }

    /// Heads that are cut short because nobody will read them.
    @Test func headsThatAreCutShortAreNotCountedAnyMore() {
        let server = RawServer(HTTP2Context(.init(), BufferPool()))
        let large: [UInt8] = [0x00, 0x01, 0x78, 0x7F, 0xBD, 0x1D] + [UInt8](repeating: 0x76, count: 3900)
        server.feed(
            RawFrames.request(1, more: large) + RawFrames.frame(.reset, stream: 1, RawFrames.number(8)))
        #expect(server.session.headBytes == 0)
    }
}
