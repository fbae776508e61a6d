// An HTTP/2 session, server's or client's, that is fed frames while its owner does what a proxy does. Checked: each
// stream is told once that it has come and once that it is over; what comes out of one is HTTP/1.1 that the parsers
// take; memory is counted down to nothing; frames that are written are whole, and none follows the end of its stream.
//
// The first byte chooses the role, the second whether the rest is fed as it is. Otherwise it is a list of steps, each a
// byte with its arguments behind it: a frame of the peer, or something that the owner does.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    var steps = Steps(unsafe FuzzInput(start, count).bytes)
    let owner = Owner(steps.byte() & 1 == 0 ? .server : .client)
    if steps.byte() & 1 == 0 {
        owner.feed(steps.rest)
        owner.serveEverything()
    } else {
        while let step = steps.next() { owner.take(step, &steps) }
    }
    owner.end()
    return 0
}

private struct Steps {
    private(set) var rest: [UInt8]
    private var index = 0

    init(_ bytes: [UInt8]) { rest = bytes }

    mutating func next() -> UInt8? {
        guard index < rest.count else { return nil }
        index += 1
        return rest[index - 1]
    }

    mutating func byte() -> UInt8 { next() ?? 0 }

    mutating func bytes(_ count: Int) -> [UInt8] {
        let end = min(rest.count, index + count)
        defer { index = end }
        return Array(rest[index..<end])
    }
}

/// Header blocks that are right, by the static table, and some that are not.
private let blocks: [[UInt8]] = [
    [0x82, 0x86, 0x84, 0x01, 0x01, 0x78],
    [0x83, 0x86, 0x84, 0x01, 0x01, 0x78, 0x0F, 0x0D, 0x01, 0x35],
    [0x83, 0x87, 0x84, 0x41, 0x01, 0x78, 0x60, 0x03, 0x61, 0x3D, 0x31, 0x60, 0x03, 0x62, 0x3D, 0x32],
    [0x88],
    [0x88, 0x0F, 0x0D, 0x01, 0x35],
    [0x89],
    [0x8B],
    [0x08, 0x03, 0x31, 0x30, 0x33],
    [0x00, 0x01, 0x74, 0x01, 0x31],
    [0x82, 0x86, 0x84, 0x41, 0x03, 0x61, 0x0D, 0x0A],
    [0x82, 0x86, 0x44, 0x02, 0x2F, 0x00],
    [0x82, 0x86, 0x84, 0x00, 0x02, 0x41, 0x62, 0x01, 0x31],
]

private let requests = [
    "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
]

private let answers = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "nothing that is a head\r\n\r\n",
]

private let bodies = ["5\r\nhello\r\n", "0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n", "hello", "zz\r\n"]

private final class Owner {
    private let context: HTTP2Context
    private let session: HTTP2Session
    private let role: HTTP2Session.Role
    private var streams: [HTTP2Stream] = []
    private var texts: [[UInt8]] = []
    private var isOver: [Bool] = []
    /// Its object is another stream's, or waits to be.
    private var isGone: [Bool] = []
    private let nobody = HTTP2Stream()
    private var written = WrittenFrames()

    init(_ role: HTTP2Session.Role) {
        var limits = HTTP2Context.Limits()
        limits.streamsMax = 8
        limits.requestFieldBytesMax = 512
        limits.responseFieldBytesMax = 512
        limits.fullBytes = 256 * 1024
        limits.heldShareBytes = 64 * 1024
        limits.heldPatienceNs = 0
        context = HTTP2Context(limits, BufferPool())
        self.role = role
        session = HTTP2Session(role, context)
        if role == .client {
            for text in requests.prefix(3) { open(text) }
        }
    }

    // MARK: Steps

    func take(_ step: UInt8, _ steps: inout Steps) {
        context.nowNs += 1_000_000
        switch step % 16 {
        case 0..<8: feed(frame(UInt8(step % 16), &steps))
        case 8:
            feed(Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + head(.init(count: 0, kind: 4, flags: 0, stream: 0)))
        case 9: flush(bytes: 16640 + Int(steps.byte()) * 256)
        case 10: receive(steps.byte(), room: 1 + Int(steps.byte()) * 8)
        case 11: send(answers[Int(steps.byte()) % answers.count], on: steps.byte())
        case 12: send(bodies[Int(steps.byte()) % bodies.count], on: steps.byte())
        case 13: close(steps.byte())
        case 14: role == .client ? open(requests[Int(steps.byte()) % requests.count]) : session.announceShutdown()
        default: own(steps.byte())
        }
    }

    private func own(_ choice: UInt8) {
        switch choice % 5 {
        case 0: session.ping()
        case 1: session.submitGoaway(.noError)
        case 2: session.terminate(.noError)
        case 3: context.nowNs += 1_000_000_000
        default: stream(choice / 5)?.finishSending()
        }
    }

    private struct FrameHead {
        var count: Int
        var kind: UInt8
        var flags: UInt8
        var stream: UInt8
    }

    /// A frame of the peer, mostly whole and of a length that its type may have.
    private func frame(_ choice: UInt8, _ steps: inout Steps) -> [UInt8] {
        let kinds: [UInt8] = [0, 1, 1, 3, 8, 4, steps.byte(), 9]
        let kind = kinds[Int(choice)]
        let flags = steps.byte()
        let id = steps.byte()
        let payload: [UInt8]
        switch kind {
        case 0: payload = [UInt8](repeating: 0x61, count: Int(steps.byte()) << (flags >> 5))
        case 1, 9:
            let number = Int(steps.byte())
            payload = blocks[number % blocks.count] + steps.bytes(number / blocks.count)
        case 3, 8: payload = steps.bytes(4)
        case 4: payload = steps.bytes(6)
        default: payload = steps.bytes(Int(steps.byte()) % 32)
        }
        let mask: UInt8 = kind == 1 ? 0x05 : kind == 0 || kind == 9 ? 0x0D : 0xFF
        return head(.init(count: payload.count, kind: kind, flags: flags & mask, stream: id)) + payload
    }

    private func head(_ head: FrameHead) -> [UInt8] {
        [UInt8(head.count >> 16 & 255), UInt8(head.count >> 8 & 255), UInt8(head.count & 255), head.kind, head.flags]
            + [0, 0, 0, head.stream & 0x3F]
    }

    // MARK: What the proxy does

    func feed(_ bytes: [UInt8]) {
        session.receive(bytes.span)
        look()
        reuse()
        require(session.streams.count < 4096, "streams are bounded")
        require(context.heldBytes >= 0, "memory is not given back twice")
        require(context.heldBytes < 8 << 20, "memory is bounded")
    }

    /// Answers whatever has come, and lets it go.
    func serveEverything() {
        flush(bytes: 1 << 17)
        for index in streams.indices {
            receive(UInt8(truncatingIfNeeded: index), room: 1 << 17)
            send(role == .server ? answers[0] : bodies[1], on: UInt8(truncatingIfNeeded: index))
        }
        flush(bytes: 1 << 17)
    }

    private func stream(_ number: UInt8) -> HTTP2Stream? {
        guard !streams.isEmpty, !isGone[Int(number) % streams.count] else { return nil }
        return streams[Int(number) % streams.count]
    }

    private func open(_ text: String) {
        guard !session.isDead, streams.count < 100 else { return }
        let stream = session.openStream()
        adopt(stream)
        send(text, on: UInt8(streams.count - 1))
    }

    private func adopt(_ stream: HTTP2Stream) {
        streams.append(stream)
        texts.append([])
        isOver.append(false)
        isGone.append(false)
    }

    private func send(_ text: String, on number: UInt8) {
        guard let stream = stream(number), !stream.isAbandoned else { return }
        let buffer = ByteBuffer(capacity: 256)
        buffer.append(string: text)
        let wasClosed = stream.isClosed
        let result = stream.send(from: buffer, countMax: buffer.readableBytes)
        if case .bytes(let count) = result {
            require(!wasClosed && count > 0, "nothing is taken for a stream that is over")
        }
    }

    private func receive(_ number: UInt8, room: Int) {
        guard let stream = stream(number), !stream.isAbandoned else { return }
        let index = Int(number) % streams.count
        let buffer = ByteBuffer(capacity: room)
        while case .bytes(let count) = stream.receive(into: buffer) {
            require(count == buffer.readableBytes && count > 0, "what is received is in the buffer")
            let bytes = buffer.readable
            texts[index] += bytes.indices.map { bytes[$0] }
            buffer.reset()
            if texts[index].count > 1 << 20 { fatalError("a stream without an end") }
        }
    }

    private func close(_ number: UInt8) {
        guard let stream = stream(number), !stream.isAbandoned else { return }
        stream.close(isReset: false)
    }

    private func look() {
        while let stream = session.nextTouched() {
            let news = stream.news
            stream.news = HTTP2Stream.News()
            if news.hasArrived {
                require(role == .server && !streams.contains { $0 === stream }, "a stream comes once")
                adopt(stream)
            }
            guard news.hasClosed else { continue }
            session.forget(stream)
            if let index = streams.firstIndex(where: { $0 === stream }) {
                require(!isOver[index], "a stream is over once")
                isOver[index] = true
            } else {
                stream.dropInbound()
            }
        }
    }

    /// What a worker does between two turns.
    private func reuse() {
        for index in streams.indices where isOver[index] && !isGone[index] && streams[index].isAbandoned {
            check(texts[index], streams[index])
            isGone[index] = true
            var leaving = nobody
            swap(&leaving, &streams[index])
            context.freeStreams.keep(consume leaving)
        }
    }

    private func flush(bytes: Int) {
        let output = ByteBuffer(capacity: bytes)
        var rounds = 0
        while true {
            let isDry = session.write(to: output)
            let span = output.readable
            written.append(span.indices.map { span[$0] })
            output.reset()
            look()
            rounds += 1
            if isDry { return }
            require(rounds < 10_000, "frames come to an end")
        }
    }

    func end() {
        flush(bytes: 1 << 17)
        session.closeAll(code: .cancel)
        look()
        for index in streams.indices where !isGone[index] {
            receive(UInt8(index), room: 1 << 16)
            require(streams[index].isClosed, "every stream is over at the end")
            close(UInt8(index))
            check(texts[index], streams[index])
        }
        require(session.streams.isEmpty, "every stream is forgotten")
        require(context.heldBytes == 0, "all memory is given back")
        context.forEachDirty { _ in }
    }

    // MARK: What came out

    private func check(_ text: [UInt8], _ stream: HTTP2Stream) {
        guard !text.isEmpty, let end = headEnd(text) else { return }
        for index in 0..<end {
            require(text[index] != 0, "no NUL in a head")
            if text[index] == 0x0D { require(text[index + 1] == 0x0A, "no bare CR") }
            if text[index] == 0x0A { require(index > 0 && text[index - 1] == 0x0D, "no bare LF") }
        }
        let table = FieldTable()
        if role == .server {
            guard case .complete(let head) = RequestParser().parse(text.span, into: table) else { return }
            require(head.headBytes == end, "one head")
            checkBody(Array(text[end...]), head.framing)
        } else {
            let parser = ResponseParser(headBytesMax: 1 << 20)
            guard case .complete(let head) = parser.parse(text.span, answering: stream.method, into: table) else {
                return
            }
            require(head.headBytes == end, "one head")
            if !head.isInterim { checkBody(Array(text[end...]), head.framing) }
        }
    }

    private func headEnd(_ text: [UInt8]) -> Int? {
        guard text.count >= 4 else { return nil }
        for index in 3..<text.count where text[(index - 3)...index].elementsEqual([13, 10, 13, 10]) { return index + 1 }
        return nil
    }

    private func checkBody(_ bytes: [UInt8], _ framing: BodyFraming) {
        switch framing {
        case .none: require(bytes.isEmpty, "nothing behind a head without a body")
        case .length(let count): require(bytes.count <= count, "no more than was announced")
        case .chunked:
            var reader = BodyReader(.chunked)
            var index = 0
            while index < bytes.count, !reader.isFinished {
                if case .malformed = reader.next(bytes.span, &index) { fatalError("chunks that cannot be read") }
            }
            require(index == bytes.count, "nothing behind the last chunk")
        case .untilClose: break
        }
    }
}

/// Follows the frames that a session writes.
private struct WrittenFrames {
    private var rest: [UInt8] = []
    private var ended: Set<Int> = []
    private var needsPreface = true

    mutating func append(_ bytes: [UInt8]) {
        rest += bytes
        if needsPreface, rest.starts(with: "PRI".utf8) { rest.removeFirst(min(24, rest.count)) }
        if !rest.isEmpty { needsPreface = false }
        var index = 0
        while index + 9 <= rest.count {
            let length = Int(rest[index]) << 16 | Int(rest[index + 1]) << 8 | Int(rest[index + 2])
            guard index + 9 + length <= rest.count else { break }
            let id = rest[(index + 5)..<(index + 9)].reduce(0) { $0 << 8 | Int($1) }
            frame(kind: rest[index + 3], flags: rest[index + 4], stream: id)
            index += 9 + length
        }
        rest.removeFirst(index)
    }

    private mutating func frame(kind: UInt8, flags: UInt8, stream: Int) {
        require(kind <= 9, "a known type")
        if kind <= 1 {
            require(!ended.contains(stream), "nothing follows the end of a stream")
            if flags & 1 != 0 { ended.insert(stream) }
        } else if kind == 3 {
            ended.insert(stream)
        }
    }
}
