import Testing

@testable import Worker

/// A client's and a server's session, wired to each other without sockets.
final class SessionPair {
    let buffers = BufferPool()
    let client: HTTP2Session
    let server: HTTP2Session
    /// Streams that the server was told of, in order.
    private(set) var arrived: [HTTP2Stream] = []
    /// Streams that either side was told are closed.
    private(set) var closed: [HTTP2Stream] = []

    init(_ limits: HTTP2Context.Limits = .init()) {
        client = HTTP2Session(.client, HTTP2Context(limits, buffers))
        server = HTTP2Session(.server, HTTP2Context(limits, buffers))
        exchange()
    }

    /// Streams hold their session until it forgets them, and a context holds the sessions that have something to write.
    deinit {
        for session in [client, server] {
            session.closeAll(code: .noError)
            look(session)
            session.context.forEachDirty { _ in }
        }
    }

    /// Moves frames both ways until neither side has any.
    func exchange() {
        while move(from: client, to: server) || move(from: server, to: client) {}
    }

    private func move(from source: HTTP2Session, to sink: HTTP2Session) -> Bool {
        let frames = ByteBuffer(capacity: 1 << 20)
        _ = source.write(to: frames)
        look(source)
        guard !frames.isEmpty else { return false }
        sink.receive(frames.readable)
        look(sink)
        return true
    }

    private func look(_ session: HTTP2Session) {
        while let stream = session.nextTouched() {
            if stream.news.hasArrived { arrived.append(stream) }
            if stream.news.hasClosed {
                closed.append(stream)
                session.forget(stream)
            }
            stream.news = HTTP2Stream.News()
        }
    }

    /// Refers to no stream any more.
    func letGo() {
        arrived = []
        closed = []
    }

    /// Opens a stream by what the proxy would write for a backend.
    func request(_ text: String) -> HTTP2Stream {
        let stream = client.openStream()
        send(text, on: stream)
        return stream
    }

    /// Gives text to a stream as the proxy would, and lets the frames go.
    @discardableResult
    func send(_ text: String, on stream: HTTP2Stream) -> Int {
        let buffer = ByteBuffer(capacity: max(1, text.utf8.count))
        buffer.append(string: text)
        _ = stream.send(from: buffer, countMax: buffer.readableBytes)
        exchange()
        return buffer.readableBytes
    }

    /// Everything that the stream has for the proxy.
    func text(_ stream: HTTP2Stream, room: Int = 65536) -> String {
        var text = ""
        while true {
            let buffer = ByteBuffer(capacity: room)
            guard case .bytes = stream.receive(into: buffer) else { return text }
            let bytes = buffer.readable
            text += String(decoding: bytes.indices.map { bytes[$0] }, as: UTF8.self)
            exchange()
        }
    }
}
