import Testing

@testable import Worker

/// A server's session that is fed damaged frames: it may end the connection, but what it passes on is sound.
@Suite struct HTTP2DamageTests {
    /// What a client with two requests sends.
    private static func conversation() -> [UInt8] {
        let client = HTTP2Session(.client, HTTP2Context(.init(), BufferPool()))
        var sent: [UInt8] = []
        func take() {
            let frames = ByteBuffer(capacity: 1 << 20)
            _ = client.write(to: frames)
            sent += frames.bytes
        }
        take()
        for text in [
            "GET /a HTTP/1.1\r\nHost: example.org\r\nCookie: a=1\r\n\r\n",
            "POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        ] {
            let stream = client.openStream()
            _ = stream.send(from: .holding(text), countMax: text.utf8.count)
            take()
        }
        close(client)
        return sent
    }

    /// Streams hold their session until it forgets them, and a context holds the sessions that have something to write.
    private static func close(_ session: HTTP2Session) {
        session.closeAll(code: .noError)
        while let stream = session.nextTouched() { session.forget(stream) }
        session.context.forEachDirty { _ in }
    }

    /// Everything that the server would give to the proxy, one text for each stream.
    private static func feed(_ bytes: [UInt8], pieceBytes: Int) -> [[UInt8]] {
        let server = HTTP2Session(.server, HTTP2Context(.init(), BufferPool()))
        var streams: [HTTP2Stream] = []
        func look() {
            while let stream = server.nextTouched() {
                if stream.news.hasArrived { streams.append(stream) }
                if stream.news.hasClosed { server.forget(stream) }
                stream.news = HTTP2Stream.News()
            }
        }
        for start in stride(from: 0, to: bytes.count, by: pieceBytes) {
            server.receive(bytes[start..<min(start + pieceBytes, bytes.count)].span)
            look()
            let frames = ByteBuffer(capacity: 1 << 17)
            _ = server.write(to: frames)
            look()
        }
        defer { close(server) }
        return streams.map { stream in
            let text = ByteBuffer(capacity: 1 << 17)
            while case .bytes = stream.receive(into: text) {}
            return text.bytes
        }
    }

    @Test func wholeConversationArrives() {
        let texts = Self.feed(Self.conversation(), pieceBytes: 7)
        #expect(texts.count == 2)
        #expect(texts.allSatisfy { RequestParser.isRequest($0) })
    }

    @Test(arguments: [1, 9, 100_000])
    func damagedFramesGiveRequestsOrNothing(_ pieceBytes: Int) {
        let sound = Self.conversation()
        var random = SplitMix64(seed: UInt64(pieceBytes))
        for _ in 0..<400 {
            var bytes = sound
            // The preface stays, so that there are frames to damage.
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 24..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            for text in Self.feed(bytes, pieceBytes: pieceBytes) {
                #expect(text.isEmpty || RequestParser.isRequest(text) || RequestParser.isRefused(text), "\(bytes)")
            }
        }
    }
}

extension RequestParser {
    /// Whether a whole head is at the start.
    fileprivate static func isRequest(_ bytes: [UInt8]) -> Bool {
        if case .complete = RequestParser().parse(bytes.span, into: FieldTable()) { return true }
        return false
    }

    fileprivate static func isRefused(_ bytes: [UInt8]) -> Bool {
        if case .refused = RequestParser().parse(bytes.span, into: FieldTable()) { return true }
        return false
    }
}
