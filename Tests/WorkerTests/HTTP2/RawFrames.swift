@testable import Worker

/// What a client writes, frame by frame, right or wrong.
enum RawFrames {
    static let preface =
        Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + frame(.settings)

    enum Kind: UInt8 {
        case data, headers, priority, reset, settings, pushPromise, ping, goaway, windowUpdate, continuation
        case unknown = 0xF0
    }

    static let endStream: UInt8 = 0x1
    static let ack: UInt8 = 0x1
    static let endHeaders: UInt8 = 0x4

    static func frame(_ kind: Kind, flags: UInt8 = 0, stream: Int = 0, _ payload: [UInt8] = []) -> [UInt8] {
        [UInt8(payload.count >> 16), UInt8(payload.count >> 8 & 255), UInt8(payload.count & 255), kind.rawValue, flags]
            + number(stream) + payload
    }

    static func number(_ value: Int) -> [UInt8] {
        [UInt8(value >> 24 & 255), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
    }

    /// `:method`, `:scheme`, `:path` and `:authority` of a GET, by the static table.
    static let fields: [UInt8] = [0x82, 0x86, 0x84, 0x01, 0x01, 0x78]

    static func request(_ stream: Int, ends: Bool = true, more: [UInt8] = []) -> [UInt8] {
        frame(.headers, flags: endHeaders | (ends ? endStream : 0), stream: stream, fields + more)
    }
}

/// A server's session that is fed raw frames, and whose owner answers nothing unless it is told to.
final class RawServer {
    let session: HTTP2Session
    private(set) var arrived: [HTTP2Stream] = []
    private(set) var written: [UInt8] = []
    var answers = false

    /// - Parameter acknowledges: The client says that it knows the server's settings.
    init(_ context: HTTP2Context = HTTP2Context(.init(), BufferPool()), acknowledges: Bool = true) {
        session = HTTP2Session(.server, context)
        feed(RawFrames.preface + (acknowledges ? RawFrames.frame(.settings, flags: RawFrames.ack) : []))
    }

    deinit {
        session.closeAll(code: .noError)
        look()
        session.context.forEachDirty { _ in }
    }

    func feed(_ bytes: [UInt8]) {
        session.receive(bytes.span)
        look()
        flush()
    }

    private let frames = ByteBuffer(capacity: 1 << 17)

    private func flush() {
        while true {
            frames.reset()
            let isDry = session.write(to: frames)
            written += frames.bytes
            look()
            if isDry { return }
        }
    }

    private func look() {
        while let stream = session.nextTouched() {
            let news = stream.news
            stream.news = HTTP2Stream.News()
            if news.hasArrived, !stream.isClosed, !stream.isResetting {
                arrived.append(stream)
                if answers { answer(stream) }
            }
            if news.hasClosed { session.forget(stream) }
        }
    }

    func answer(_ stream: HTTP2Stream) {
        let text = ByteBuffer.holding("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        _ = stream.send(from: text, countMax: text.readableBytes)
    }

    /// Error codes of the GOAWAYs that were written.
    var goaways: [UInt8] {
        var codes: [UInt8] = []
        var index = 0
        while index + 9 <= written.count {
            let length = Int(written[index]) << 16 | Int(written[index + 1]) << 8 | Int(written[index + 2])
            if written[index + 3] == RawFrames.Kind.goaway.rawValue { codes.append(written[index + 16]) }
            index += 9 + length
        }
        return codes
    }

    /// The connection was ended with ENHANCE_YOUR_CALM.
    var isCalmed: Bool { goaways == [11] }
}
