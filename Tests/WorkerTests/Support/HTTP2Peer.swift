import Glibc

@testable import Worker

/// A backend's end of one HTTP/2 connection. It reads and writes only when a test lets it look, and answers every
/// request with an empty 200.
/// Unsafe: socket calls on arrays and addresses.
final class HTTP2Peer {
    private static let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    private let descriptor: Int32
    private let session = HTTP2Session(.server, HTTP2Context(.init(), BufferPool()))
    /// Numbers of the streams that requests came on.
    private(set) var streamIDs: [Int32] = []
    /// Everything that came, whatever it means.
    private(set) var bytes: [UInt8] = []
    private(set) var isEnded = false
    var answers = true

    /// The next connection, nil when none waits.
    init?(accepting listener: LocalListener) {
        descriptor = Glibc.accept(listener.descriptor, nil, nil)
        guard descriptor >= 0 else { return nil }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    deinit {
        session.closeAll(code: .noError)
        while let stream = session.nextTouched() { session.forget(stream) }
        session.context.forEachDirty { _ in }
        if descriptor >= 0 { close(descriptor) }
    }

    /// Reads what is there; what it means is not looked at.
    func read() -> [UInt8] {
        var piece = [UInt8](repeating: 0, count: 65536)
        let count = unsafe recv(descriptor, &piece, piece.count, 0)
        if count == 0 { isEnded = true }
        let fresh = Array(piece.prefix(max(0, count)))
        bytes += fresh
        return fresh
    }

    /// Sends bytes as they are.
    func send(_ raw: [UInt8]) { _ = unsafe Glibc.send(descriptor, raw, raw.count, Int32(MSG_NOSIGNAL)) }

    /// Ends its side of the connection, in order.
    func hangUp() { _ = shutdown(descriptor, Int32(SHUT_WR)) }

    /// Reads, answers and writes.
    func look() {
        let fresh = read()
        session.receive(fresh.span)
        serveStreams()
        let output = ByteBuffer(capacity: 1 << 18)
        _ = session.write(to: output)
        serveStreams()
        if !output.isEmpty { _ = output.send(to: descriptor) }
    }

    private func serveStreams() {
        while let stream = session.nextTouched() {
            let news = stream.news
            stream.news = HTTP2Stream.News()
            if news.hasArrived {
                streamIDs.append(stream.id)
                guard answers else { continue }
                let text = ByteBuffer(capacity: 64)
                text.append(string: Self.answer)
                _ = stream.send(from: text, countMax: text.readableBytes)
            }
            if news.hasClosed { session.forget(stream) }
        }
    }
}
