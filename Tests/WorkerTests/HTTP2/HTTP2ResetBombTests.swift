import Testing

@testable import Worker

/// Requests that are over before anybody has looked at them, many in one read.
@Suite struct HTTP2ResetBombTests {
    private static let large = [UInt8](repeating: 0x76, count: 3900)
    /// A field of 3900 bytes, which is 62 in the dynamic table from then on.
    private static let first = [UInt8](arrayLiteral: 0x40, 0x01, 0x78, 0x7F, 0xBD, 0x1D) + large
    /// Eight references to it: a head of 31 KiB.
    private static let heavy = [UInt8](repeating: 0xBE, count: 8)
    private static let cancel: [UInt8] = [0, 0, 0, 8]

    private let context = HTTP2Context(.init(), BufferPool())

    private func session() -> HTTP2Session {
        let session = HTTP2Session(.server, context)
        let bytes = RawFrames.preface + RawFrames.request(1, more: Self.first)
        session.receive(bytes.span)
        while let stream = session.nextTouched() { stream.news = .init() }
        return session
    }

    /// Streams that nobody has looked at, with their requests.
    private func arrived(_ session: HTTP2Session) -> [HTTP2Stream] {
        var arrived: [HTTP2Stream] = []
        while let stream = session.nextTouched() {
            if stream.news.hasArrived { arrived.append(stream) }
            stream.news = .init()
        }
        return arrived
    }

    private func end(_ session: HTTP2Session) {
        session.closeAll(code: .noError)
        while session.nextTouched() != nil {}
        while session.streams.count > 0 { session.forget(session.streams[0]) }
        context.forEachDirty { _ in }
    }

    private func text(_ stream: HTTP2Stream) -> String {
        let buffer = ByteBuffer(capacity: 1 << 17)
        _ = stream.receive(into: buffer)
        return buffer.text
    }

    @Test func headsOfStreamsThatAreResetTakeLittle() {
        let session = session()
        defer { end(session) }
        let before = context.heldBytes
        var bytes: [UInt8] = []
        for index in 1...1900 {
            let id = 2 * index + 1
            bytes += RawFrames.request(id, more: Self.heavy) + RawFrames.frame(.reset, stream: id, Self.cancel)
        }
        session.receive(bytes.span)
        #expect(context.heldBytes == before)
        #expect(session.patience.exhausted == .spoiledStreams)
        let arrived = arrived(session)
        #expect(arrived.count <= HTTP2Patience.streamsMax + 1)
        #expect(text(arrived[0]) == "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    }

    /// What fits into a small buffer is told whole.
    @Test func smallHeadIsKept() throws {
        let session = session()
        defer { end(session) }
        let field: [UInt8] = [0x00, 0x01, 0x61, 0x01, 0x62]
        let bytes =
            RawFrames.request(3, ends: false, more: field) + RawFrames.frame(.reset, stream: 3, Self.cancel)
        session.receive(bytes.span)
        let stream = try #require(arrived(session).first)
        #expect(text(stream) == "GET / HTTP/1.1\r\nhost: x\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n")
    }

    /// Body bytes that nobody will read are credited.
    @Test func bodyBehindAShortenedHeadIsDropped() throws {
        let session = session()
        defer { end(session) }
        let bytes =
            RawFrames.request(3, ends: false, more: Self.heavy)
            + RawFrames.frame(.data, stream: 3, [UInt8](repeating: 0x61, count: 9000))
            + RawFrames.frame(.reset, stream: 3, Self.cancel)
        session.receive(bytes.span)
        #expect(session.waitingBytes == 0)
        let stream = try #require(arrived(session).first)
        #expect(text(stream) == "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    }
}
