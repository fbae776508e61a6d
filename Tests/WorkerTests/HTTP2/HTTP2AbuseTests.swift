import Testing

@testable import Worker

/// Floods end the connection with ENHANCE_YOUR_CALM and a cause; what looks like one and is not goes on.
@Suite struct HTTP2AbuseTests {
    private typealias Frames = RawFrames

    /// Feeds pieces until the connection ends.
    /// - Returns: How many it took.
    private func flood(_ server: RawServer, upTo countMax: Int = 100_000, _ piece: (Int) -> [UInt8]) -> Int {
        for index in 0..<countMax {
            server.feed(piece(index))
            if server.session.patience.exhausted != nil || server.session.isFinished { return index }
        }
        return countMax
    }

    @Test(arguments: [
        (RawFrames.frame(.ping, [UInt8](repeating: 1, count: 8)), 8000),
        (RawFrames.frame(.settings, RawFrames.number(0x0003_0000) + [0, 1]), 3000),
        (RawFrames.frame(.priority, stream: 1, RawFrames.number(0) + [9]), 50_000),
        (RawFrames.frame(.windowUpdate, RawFrames.number(1)), 50_000),
        (RawFrames.frame(.windowUpdate, stream: 1, RawFrames.number(1)), 50_000),
        (RawFrames.frame(.unknown), 70_000),
        (RawFrames.frame(.data, stream: 1), 3000),
    ])
    func framesThatCarryNothing(_ frame: [UInt8], _ most: Int) {
        let server = RawServer()
        server.feed(Frames.request(1, ends: false))
        let count = flood(server, upTo: most / 100 + 1) { _ in Array(repeatElement(frame, count: 100).joined()) }
        #expect(count <= most / 100)
        #expect(server.isCalmed)
        #expect(server.session.patience.exhausted == .emptyFrames)
    }

    @Test func answersThatAreNotRead() {
        let server = RawServer()
        let pings = Array(repeatElement(Frames.frame(.ping, [UInt8](repeating: 1, count: 8)), count: 3000).joined())
        // All in one read: nothing is written in between.
        server.feed(pings)
        #expect(server.session.patience.exhausted == .unreadAnswers)
        #expect(server.session.isDead)
    }

    @Test func rapidReset() {
        let server = RawServer()
        let count = flood(server) { index in
            Frames.request(2 * index + 1) + Frames.frame(.reset, stream: 2 * index + 1, Frames.number(8))
        }
        #expect((1000...1100).contains(count))
        #expect(server.isCalmed)
        #expect(server.session.patience.exhausted == .spoiledStreams)
    }

    @Test(arguments: ["window", "length", "fields"])
    func resetsThatTheClientProvokes(_ kind: String) {
        let server = RawServer()
        let count = flood(server) { index in
            let stream = 2 * index + 1
            switch kind {
            case "window":
                return Frames.request(stream, ends: false)
                    + Frames.frame(.windowUpdate, stream: stream, Frames.number(0x7FFF_FFFF))
            case "length":
                return Frames.request(stream, ends: false, more: [0x0F, 0x0D, 0x01, 0x31])
                    + Frames.frame(.data, stream: stream, [1, 2])
            default:
                return Frames.frame(
                    .headers, flags: Frames.endHeaders | Frames.endStream, stream: stream, [0x82, 0x82])
            }
        }
        #expect((1000...1100).contains(count))
        #expect(server.isCalmed)
    }

    @Test func streamsOverALimitThatIsKnown() {
        let server = RawServer()
        #expect(flood(server) { index in Frames.request(2 * index + 1, ends: false) } == 128)
        #expect(server.goaways == [1])
    }

    @Test func streamsOverTheLimit() {
        let server = RawServer(acknowledges: false)
        let count = flood(server) { index in Frames.request(2 * index + 1, ends: false) }
        #expect((1100...1300).contains(count))
        #expect(server.isCalmed)
        #expect(server.arrived.count == 128)
    }

    @Test func headerBlockThatUnfolds() {
        let server = RawServer()
        // One field of 4000 bytes goes into the table; every further byte stands for it.
        let field: [UInt8] = [0x40, 0x01, 0x61, 0x7F, 0xA1, 0x1E] + [UInt8](repeating: 0x62, count: 4000)
        let block = Frames.fields + field + [UInt8](repeating: 0xBE, count: 10_000)
        server.feed(Frames.frame(.headers, flags: Frames.endHeaders | Frames.endStream, stream: 1, block))
        #expect(server.isCalmed)
        #expect(server.session.patience.exhausted == .fieldBytes)
        #expect(server.session.blockBytes < 300 * 1024)
        #expect(server.arrived.isEmpty)
    }

    @Test func headerBlockInManyFrames() {
        let server = RawServer()
        server.feed(Frames.frame(.headers, flags: Frames.endStream, stream: 1, Frames.fields))
        #expect(server.session.isInBlock)
        for _ in 0..<20 { server.feed(Frames.frame(.continuation, stream: 1)) }
        #expect(server.session.patience.exhausted == .continuations)
        #expect(server.session.isDead)
        #expect(server.isCalmed)
    }

    @Test func streamNumberThatWasLeftOut() {
        let server = RawServer()
        server.feed(Frames.request(5) + Frames.request(9))
        #expect(server.arrived.count == 2)
        server.feed(Frames.request(3))
        #expect(server.goaways == [1])
    }

    // What is no abuse

    @Test func trailersOnAStreamThatWasReset() {
        let server = RawServer()
        server.feed(Frames.request(1, ends: false))
        server.arrived[0].close(isReset: false)
        server.feed([])
        for number in 1..<100 { server.feed(Frames.request(2 * number + 1)) }
        server.feed(Frames.frame(.headers, flags: 5, stream: 1, [0x00, 0x01, 0x74, 0x01, 0x31]))
        #expect(server.goaways.isEmpty)
    }

    @Test func clientThatGivesCreditForEachAnswer() {
        let server = RawServer()
        server.answers = true
        // Each request with its answer is worth more than the credit for it.
        let count = flood(server, upTo: 400) { index in
            Array((0..<50).map { Frames.request(2 * (50 * index + $0) + 1) }.joined())
                + Array(repeatElement(Frames.frame(.windowUpdate, Frames.number(2)), count: 50).joined())
        }
        #expect(count == 400)
        #expect(server.arrived.count == 20_000)
    }

    @Test func clientWithSmallMessages() {
        let server = RawServer()
        server.feed(Frames.request(1, ends: false))
        let buffer = ByteBuffer(capacity: 65536)
        let piece = Array(repeatElement(Frames.frame(.data, stream: 1, [7]), count: 1000).joined())
        let count = flood(server, upTo: 100) { _ in
            // The proxy takes what comes.
            _ = server.arrived[0].receive(into: buffer)
            buffer.reset()
            return piece
        }
        #expect(count == 100)
    }

    @Test func streamsThatEndWellMakeUpForResets() {
        let server = RawServer()
        server.answers = true
        let count = flood(server, upTo: 1500) { index in
            let stream = 4 * index + 1
            server.answers = false
            server.feed(Frames.request(stream) + Frames.frame(.reset, stream: stream, Frames.number(8)))
            server.answers = true
            return Frames.request(stream + 2)
        }
        #expect(count == 1500)
    }

    @Test func trailersOnAStreamThatWasRefused() {
        var limits = HTTP2Context.Limits()
        limits.streamsMax = 2
        let server = RawServer(HTTP2Context(limits, BufferPool()), acknowledges: false)
        for number in 0..<4 { server.feed(Frames.request(2 * number + 1, ends: false)) }
        server.feed(Frames.frame(.reset, stream: 1, Frames.number(8)))
        server.feed(Frames.request(9))
        #expect(server.arrived.count == 3)
        server.feed(Frames.frame(.headers, flags: 5, stream: 5, [0x00, 0x01, 0x74, 0x01, 0x31]))
        #expect(server.goaways.isEmpty)
    }

    // Memory

    @Test func streamsThatHoldTooMuchWhileMemoryIsShort() {
        var limits = HTTP2Context.Limits()
        limits.fullBytes = 3 << 20
        limits.firstWindowBytes = 256 * 1024
        let context = HTTP2Context(limits, BufferPool())
        let modest = RawServer(context)
        modest.feed(Frames.request(1, ends: false) + Self.body(1))
        let server = RawServer(context)
        let count = flood(server, upTo: 100) { index in
            context.nowNs += 200_000_000
            return Frames.request(2 * index + 1, ends: false) + Self.body(2 * index + 1)
        }
        #expect(count < 25)
        #expect(server.isCalmed)
        #expect(server.session.patience.exhausted == .memory)
        #expect(modest.goaways.isEmpty)
        server.session.closeAll(code: .cancel)
        while let stream = server.session.nextTouched() { letGo(stream, server) }
        #expect(context.heldBytes < 1 << 20)
    }

    @Test func burstsAreGivenTime() {
        var limits = HTTP2Context.Limits()
        limits.fullBytes = 3 << 20
        limits.firstWindowBytes = 256 * 1024
        let context = HTTP2Context(limits, BufferPool())
        context.nowNs = 1_000_000_000
        let server = RawServer(context)
        let count = flood(server, upTo: 40) { index in
            Frames.request(2 * index + 1, ends: false) + Self.body(2 * index + 1)
        }
        #expect(count == 40)
        #expect(context.heldBytes > limits.fullBytes)
        context.nowNs += 3_000_000_000
        server.feed(Frames.request(101, ends: false) + Self.body(101))
        #expect(server.isCalmed)
        server.session.closeAll(code: .cancel)
        while let stream = server.session.nextTouched() { letGo(stream, server) }
        #expect(context.heldBytes == 0)
    }

    /// As the proxy does with a stream that is over and nobody's.
    private func letGo(_ stream: HTTP2Stream, _ server: RawServer) {
        server.session.forget(stream)
        stream.dropInbound()
    }

    /// 200 KiB of DATA.
    private static func body(_ stream: Int) -> [UInt8] {
        let piece = [UInt8](repeating: 0, count: 16384)
        return Array(repeatElement(RawFrames.frame(.data, stream: stream, piece), count: 12).joined())
    }
}
