import Testing

@testable import Worker

/// Requests that are answered before they have ended.
@Suite struct HTTP2DiscardingTests {
    private static let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"

    /// A request whose body has only begun, with its whole answer, which the server's owner has let go of.
    private func answeredEarly(_ pair: SessionPair, bodyBytes: Int) throws -> HTTP2Stream {
        let stream = pair.request("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \(bodyBytes)\r\n\r\nhello")
        let server = try #require(pair.arrived.last)
        pair.send(Self.answer, on: server)
        server.close(isReset: false)
        pair.exchange()
        #expect(pair.text(stream).hasSuffix("\r\n\r\nno"))
        return stream
    }

    @Test func restIsReadAndTheRequestEndsWell() throws {
        let pair = SessionPair()
        // More than a window, less than the limit.
        let stream = try answeredEarly(pair, bodyBytes: 600_005)
        for _ in 0..<12 {
            #expect(!stream.isClosed)
            #expect(pair.send(String(repeating: "x", count: 50_000), on: stream) == 0)
        }
        #expect(stream.isClosed && !stream.wasResetByPeer)
        #expect(pair.server.streams.isEmpty && pair.server.discarding.isEmpty)
    }

    @Test func restThatIsTooLongIsRefused() throws {
        var limits = HTTP2Context.Limits()
        limits.discardBytesMax = 100_000
        let pair = SessionPair(limits)
        let stream = try answeredEarly(pair, bodyBytes: 600_005)
        pair.send(String(repeating: "x", count: 60_000), on: stream)
        pair.send(String(repeating: "x", count: 40_000), on: stream)
        #expect(!stream.isClosed)
        pair.send("x", on: stream)
        #expect(stream.isClosed && stream.wasResetByPeer)
        #expect(stream.errorCode == HTTP2ErrorCode.noError.rawValue)
        #expect(pair.server.discarding.isEmpty)
    }

    @Test func restThatTakesTooLongIsRefused() throws {
        let pair = SessionPair()
        let first = try answeredEarly(pair, bodyBytes: 50)
        pair.server.context.nowNs = 1_000_000_000
        let second = try answeredEarly(pair, bodyBytes: 50)
        func expire(atNs: UInt64) {
            pair.server.endDiscards(nowNs: atNs)
            pair.exchange()
        }
        expire(atNs: 1_999_999_999)
        #expect(!first.isClosed)
        expire(atNs: 2_000_000_000)
        #expect(first.wasResetByPeer && first.errorCode == HTTP2ErrorCode.noError.rawValue)
        #expect(!second.isClosed)
        #expect(pair.server.discardDueNs == 3_000_000_000)
        expire(atNs: 3_000_000_000)
        #expect(second.wasResetByPeer)
        #expect(pair.server.discardDueNs == nil)
    }

    @Test func restThatComesSlowlyIsWaitedForLonger() throws {
        let pair = SessionPair()
        let stream = try answeredEarly(pair, bodyBytes: 500)
        for second in 1...29 {
            pair.server.context.nowNs = UInt64(second) * 1_000_000_000
            pair.send("x", on: stream)
            pair.server.endDiscards(nowNs: pair.server.context.nowNs)
            pair.exchange()
            #expect(!stream.isClosed)
        }
        #expect(pair.server.discardDueNs == 30_000_000_000)
        pair.server.endDiscards(nowNs: 30_000_000_000)
        pair.exchange()
        #expect(stream.wasResetByPeer && stream.errorCode == HTTP2ErrorCode.noError.rawValue)
    }

    @Test func onlySoManyRestsAreWaitedFor() throws {
        var limits = HTTP2Context.Limits()
        limits.discardingMax = 3
        let pair = SessionPair(limits)
        let streams = try (0..<5).map { _ in try answeredEarly(pair, bodyBytes: 50) }
        #expect(streams.map(\.wasResetByPeer) == [true, true, false, false, false])
    }

    @Test func clientThatLeavesTheRestHasSpoiltNothing() {
        let server = RawServer()
        for index in 0..<2000 {
            let stream = 2 * index + 1
            server.feed(RawFrames.request(stream, ends: false))
            server.answer(server.arrived[index])
            server.feed([])
            server.arrived[index].close(isReset: false)
            server.feed(RawFrames.frame(.reset, stream: stream, RawFrames.number(8)))
        }
        #expect(server.goaways.isEmpty)
        #expect(server.session.streams.isEmpty && server.session.discarding.isEmpty)
    }

    @Test func bytesBeyondTheLimitCountAsUseless() {
        var limits = HTTP2Context.Limits()
        limits.discardBytesMax = 10_000
        let server = RawServer(HTTP2Context(limits, BufferPool()))
        server.feed(RawFrames.request(1, ends: false))
        server.answer(server.arrived[0])
        server.feed([])
        server.arrived[0].close(isReset: false)
        let piece = RawFrames.frame(.data, stream: 1, [UInt8](repeating: 1, count: 16384))
        // What may have been on its way, and what any client may send in vain.
        for _ in 0..<(256 + 512) / 16 + 8 { server.feed(piece) }
        #expect(server.isCalmed)
        #expect(server.session.patience.exhausted == .emptyFrames)
    }
}
