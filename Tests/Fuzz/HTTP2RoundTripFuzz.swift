// Any HTTP/1.1 head, sent over HTTP/2 from one session to another. Checked: what comes out on the other side is a head
// that the parsers take, with the same method, target or status and the same fields, but for those that belong to one
// connection and the body's framing; a head that HTTP/2 has no words for is refused by one of the two, and nothing
// comes out.
//
// The first byte chooses between request and response, and whether the ways of a head are compared, straight or by
// text; the rest is the text.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let bytes = unsafe FuzzInput(start, count).bytes
    guard let choice = bytes.first else { return 0 }
    let text = Array(bytes.dropFirst())
    if choice & 5 == 5 {
        compareWays(text, isHead: choice & 2 == 2)
        return 0
    }
    if choice & 9 == 8 {
        compareWays(text)
        return 0
    }
    let trip = Trip()
    choice & 1 == 0 ? trip.request(text) : trip.response(text, isHead: choice & 2 == 2)
    trip.end()
    return 0
}

/// A backend's head that goes straight into HEADERS says what it would by way of the text for an HTTP/1.1 client.
private func compareWays(_ text: [UInt8], isHead: Bool) {
    let straight = Trip()
    let byText = Trip()
    if let short = straight.passedOn(text, isHead: isHead, asText: false),
        let long = byText.passedOn(text, isHead: isHead, asText: true)
    {
        require(short == long, "both ways of a head say the same")
    }
    straight.end()
    byText.end()
}

/// The same of a client's head.
private func compareWays(_ text: [UInt8]) {
    let straight = Trip()
    let byText = Trip()
    if let short = straight.passedOn(text, asText: false), let long = byText.passedOn(text, asText: true) {
        require(short == long, "both ways of a request say the same")
    }
    straight.end()
    byText.end()
}

/// One field that must arrive.
private struct Field: Equatable {
    var name: [UInt8]
    var value: [UInt8]
}

private final class Trip {
    private let client: HTTP2Session
    private let server: HTTP2Session
    private let frames = ByteBuffer(capacity: 1 << 18)
    private var arrived: HTTP2Stream?
    private var opened: HTTP2Stream?

    init() {
        var limits = HTTP2Context.Limits()
        limits.requestFieldBytesMax = 65536
        let context = HTTP2Context(limits, BufferPool())
        client = HTTP2Session(.client, context)
        server = HTTP2Session(.server, context)
        exchange()
    }

    func end() {
        for session in [client, server] {
            session.closeAll(code: .cancel)
            look(session)
            session.context.forEachDirty { _ in }
        }
    }

    // MARK: The two directions

    func request(_ text: [UInt8]) {
        let table = FieldTable(capacity: 256)
        let parser = RequestParser(limits: .init(headBytesMax: 1 << 16, targetBytesMax: 1 << 16, fieldsMax: 200))
        guard case .complete(let sent) = parser.parse(text.span, into: table) else { return }
        let expected = fields(text, table, drops: [.host, .te])
        let cookies = joinedCookies(text, table)
        send(Array(text.prefix(sent.headBytes)), on: open())
        guard let stream = arrived, stream.refusal == nil, !stream.isResetting else { return }
        let got = receive(stream)
        let gotTable = FieldTable(capacity: 256)
        guard case .complete(let head) = parser.parse(got.span, into: gotTable) else {
            // The proxy's own parser refuses it next.
            return require(!isIncomplete(parser, got), "a whole head comes out")
        }
        require(Array(got[head.methodText]) == Array(text[sent.methodText]), "the method is the same")
        require(Array(got[head.target]) == Array(text[sent.target]), "the target is the same")
        require(fields(got, gotTable, drops: [.host, .te]) == expected, "the fields are the same")
        require(joinedCookies(got, gotTable) == cookies, "the cookies are the same")
    }

    func response(_ text: [UInt8], isHead: Bool) {
        let table = FieldTable(capacity: 600)
        let parser = ResponseParser(headBytesMax: 1 << 17)
        let stream = open()
        send(Array("\(isHead ? "HEAD" : "GET") / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), on: stream)
        guard let served = arrived else { fatalError("a plain request arrives") }
        _ = receive(served)
        guard case .complete(let sent) = parser.parse(text.span, answering: served.method, into: table) else { return }
        let expected = fields(text, table, drops: [])
        send(Array(text.prefix(sent.headBytes)), on: served)
        let got = receive(stream)
        guard !got.isEmpty else { return }
        let gotTable = FieldTable(capacity: 600)
        guard case .complete(let head) = parser.parse(got.span, answering: served.method, into: gotTable) else {
            return require(false, "what comes out is a head")
        }
        require(head.status == sent.status, "the status is the same")
        require(fields(got, gotTable, drops: []) == expected, "the fields are the same")
    }

    /// What a client gets of a backend's final head; nil when it is none, or cannot go that way.
    func passedOn(_ text: [UInt8], isHead: Bool, asText: Bool) -> [UInt8]? {
        let stream = open()
        send(Array("\(isHead ? "HEAD" : "GET") / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), on: stream)
        guard let served = arrived else { fatalError("a plain request arrives") }
        _ = receive(served)
        let table = FieldTable(capacity: 600)
        let parser = ResponseParser(headBytesMax: 1 << 17)
        guard case .complete(let head) = parser.parse(text.span, answering: served.method, into: table), !head.isInterim
        else { return nil }
        var additions = HeadWriter.ResponseAdditions()
        additions.writesChunks = head.framing == .chunked || head.framing == .untilClose
        if asText {
            let output = ByteBuffer(capacity: HeadWriter.responseBytesMax(head))
            HeadWriter.writeResponse(text.span, head, table, additions, to: output)
            let bytes = output.readable
            send(bytes.indices.map { bytes[$0] }, on: served)
        } else {
            guard served.sendHead(text.span, head, table, additions) else { return nil }
            exchange()
        }
        return receive(stream)
    }

    /// What a backend gets of a client's head; nil when it is none, or cannot go that way.
    func passedOn(_ text: [UInt8], asText: Bool) -> [UInt8]? {
        let table = FieldTable(capacity: 256)
        let parser = RequestParser(limits: .init(headBytesMax: 1 << 16, targetBytesMax: 1 << 16, fieldsMax: 200))
        guard case .complete(let head) = parser.parse(text.span, into: table) else { return nil }
        var additions = HeadWriter.RequestAdditions(fallbackHost: "fallback")
        additions.identity = TraceIdentity()
        let peer = Array("192.0.2.7".utf8)
        let stream = open()
        if asText {
            let output = ByteBuffer(capacity: HeadWriter.requestBytesMax(head, fallbackHost: "fallback"))
            HeadWriter.writeRequest(text.span, head, table, peer: peer.span, additions, to: output)
            let bytes = output.readable
            send(bytes.indices.map { bytes[$0] }, on: stream)
        } else {
            guard stream.sendHead(text.span, head, table, peer: peer.span, additions) else { return nil }
            exchange()
        }
        return arrived.map { receive($0) }
    }

    private func isIncomplete(_ parser: RequestParser, _ text: [UInt8]) -> Bool {
        if case .incomplete = parser.parse(text.span, into: FieldTable(capacity: 256)) { return true }
        return false
    }

    // MARK: Fields

    /// Those that go on, in their order, with names in lower case.
    private func fields(_ text: [UInt8], _ table: FieldTable, drops: [KnownField]) -> [Field] {
        var fields: [Field] = []
        for line in table.lines {
            switch line.known {
            case .connection, .keepAlive, .proxyConnection, .transferEncoding, .upgrade, .http2Settings, .contentLength:
                continue
            case let known where known != .other && drops.contains(known): continue
            default: break
            }
            let name = text[line.name].map { lowercased($0) }
            if name.elementsEqual("cookie".utf8) { continue }
            fields.append(Field(name: name, value: Array(text[line.value])))
        }
        return fields
    }

    private func joinedCookies(_ text: [UInt8], _ table: FieldTable) -> [UInt8] {
        var joined: [UInt8] = []
        for line in table.lines where text[line.name].map({ lowercased($0) }).elementsEqual("cookie".utf8) {
            if !joined.isEmpty { joined += Array("; ".utf8) }
            joined += text[line.value]
        }
        // An empty one at the end leaves white space there, which is none of a value.
        while let last = joined.last, last == 0x20 || last == 0x09 { joined.removeLast() }
        return joined
    }

    // MARK: Moving

    private func open() -> HTTP2Stream {
        let stream = client.openStream()
        opened = stream
        return stream
    }

    private func send(_ text: [UInt8], on stream: HTTP2Stream) {
        let buffer = ByteBuffer(capacity: max(1, text.count))
        buffer.append(text.span)
        _ = stream.send(from: buffer, countMax: text.count)
        exchange()
    }

    private func receive(_ stream: HTTP2Stream) -> [UInt8] {
        let buffer = ByteBuffer(capacity: 1 << 17)
        while buffer.writableBytes > 64, case .bytes = stream.receive(into: buffer) {}
        let bytes = buffer.readable
        return bytes.indices.map { bytes[$0] }
    }

    private func exchange() {
        for _ in 0..<100 { if !move(client, server), !move(server, client) { return } }
    }

    private func move(_ source: HTTP2Session, _ sink: HTTP2Session) -> Bool {
        let frames = frames
        frames.reset()
        _ = source.write(to: frames)
        look(source)
        guard !frames.isEmpty else { return false }
        sink.receive(frames.readable)
        look(sink)
        return true
    }

    private func look(_ session: HTTP2Session) {
        while let stream = session.nextTouched() {
            let news = stream.news
            stream.news = HTTP2Stream.News()
            if news.hasArrived { arrived = stream }
            if news.hasClosed { session.forget(stream) }
        }
    }
}
