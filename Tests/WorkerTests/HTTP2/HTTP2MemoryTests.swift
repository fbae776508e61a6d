import Testing

@testable import Worker

/// Sessions that rest, and go on as if nothing had been.
@Suite(.enabled(if: SessionRange.exists)) struct HTTP2MemoryTests {
    private static let second: UInt64 = 1_000_000_000

    /// Time passes for both sides of a pair.
    private func pass(_ pair: SessionPair, seconds: Int) {
        for _ in 0..<seconds {
            for session in [pair.client, pair.server] {
                session.context.forEachDirty { _ in }
                session.context.nowNs += Self.second
                session.context.memory.settle(nowNs: session.context.nowNs)
            }
        }
    }

    private func answer(_ pair: SessionPair, _ index: Int) throws {
        let stream = pair.request("GET /\(index) HTTP/1.1\r\nHost: example.org\r\nX-Field: \(index)\r\n\r\n")
        let served = try #require(pair.arrived.last)
        #expect(pair.text(served) == "GET /\(index) HTTP/1.1\r\nhost: example.org\r\nx-field: \(index)\r\n\r\n")
        pair.send("HTTP/1.1 200 OK\r\nX-Answer: \(index)\r\nContent-Length: 2\r\n\r\nok", on: served)
        #expect(pair.text(stream).hasSuffix("x-answer: \(index)\r\ncontent-length: 2\r\n\r\nok"))
    }

    @Test func aSessionRestsAfterAWholePeriodWithoutAnything() throws {
        let pair = SessionPair()
        try answer(pair, 0)
        pass(pair, seconds: 1)
        #expect(!pair.server.isPacked && !pair.client.isPacked)
        pass(pair, seconds: 1)
        #expect(pair.server.isPacked && pair.client.isPacked)
        #expect(pair.server.context.memory.nextNs == .max)
        #expect(pair.server.context.memory.awakeCount == 0)
    }

    @Test func whoAsksEverySecondStaysAwake() throws {
        let pair = SessionPair()
        for index in 0..<5 {
            try answer(pair, index)
            pass(pair, seconds: 1)
            #expect(!pair.server.isPacked && !pair.client.isPacked)
        }
    }

    @Test func whoComesBackStaysAwakeForLongerUpToALimit() throws {
        let pair = SessionPair()
        for seconds in [1, 2, 4, 8, 16, 16] {
            try answer(pair, seconds)
            pass(pair, seconds: seconds)
            #expect(!pair.server.isPacked)
            pass(pair, seconds: 1)
            #expect(pair.server.isPacked)
        }
    }

    /// What HPACK has agreed on, the numbers of streams, windows: all of it is there again.
    @Test func requestsGoOnAfterEveryRest() throws {
        let pair = SessionPair()
        for index in 0..<300 {
            try answer(pair, index)
            if index % 7 == 0 { pass(pair, seconds: 17) }
            #expect(pair.server.isPacked == (index % 7 == 0))
        }
        #expect(!pair.server.isDead && !pair.client.isDead)
    }

    @Test func aStreamInTheMiddleOfItsBodyRestsToo() throws {
        let pair = SessionPair()
        let stream = pair.request("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        pass(pair, seconds: 2)
        #expect(pair.server.isPacked && pair.client.isPacked)
        pair.send("world", on: stream)
        #expect(pair.text(try #require(pair.arrived.first)).hasSuffix("\r\n\r\nhelloworld"))
    }

    @Test func aHeaderBlockThatIsNotWholeRestsToo() throws {
        let server = RawServer()
        server.feed(RawFrames.frame(.headers, flags: RawFrames.endStream, stream: 1, [0x82, 0x86, 0x84]))
        for _ in 0..<2 {
            server.session.context.forEachDirty { _ in }
            server.session.context.nowNs += Self.second
            server.session.context.memory.settle(nowNs: server.session.context.nowNs)
        }
        #expect(server.session.isPacked && server.session.isInBlock)
        server.feed(RawFrames.frame(.continuation, flags: RawFrames.endHeaders, stream: 1, [0x01, 0x01, 0x78]))
        let stream = try #require(server.arrived.first)
        let text = ByteBuffer(capacity: 1024)
        _ = stream.receive(into: text)
        #expect(String(decoding: text.bytes, as: UTF8.self) == "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    }

    @Test func headersBeyondTheFirstPageComeThroughAfterARest() throws {
        let pair = SessionPair()
        for _ in 0..<3 {
            let value = String(repeating: "v~", count: 4000)
            _ = pair.request("GET / HTTP/1.1\r\nHost: x\r\nX-Long: \(value)\r\n\r\n")
            #expect(pair.text(try #require(pair.arrived.last)).contains(value))
            pass(pair, seconds: 17)
            #expect(pair.client.isPacked)
        }
    }

    @Test func aSessionThatEndsLeavesTheList() {
        let pair = SessionPair()
        let context = HTTP2Context(.init(), pair.buffers)
        do {
            let sessions = (0..<3).map { _ in HTTP2Session(.server, context) }
            #expect(context.memory.awakeCount == 3)
            context.forEachDirty { _ in }
            context.nowNs = Self.second
            context.memory.settle(nowNs: .max)
            sessions[1].ping()
            context.forEachDirty { _ in }
            context.memory.settle(nowNs: .max)
            #expect(sessions.map(\.isPacked) == [true, false, true])
            #expect(context.memory.awakeCount == 1)
        }
        #expect(context.memory.awakeCount == 0)
    }
}
