import Testing

@testable import Worker

/// However the bytes of a message arrive, and whatever has been done to them, the verdict is the same.
@Suite struct ArrivalTests {
    private static let long = String(repeating: "a", count: 150)

    private static let requests = [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST http://a.test:80/p?q HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        "PUT /up HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nTE: trailers\r\n\r\n5\r\nhello",
        "OPTIONS * HTTP/1.0\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nX-B: \t \r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/2.0x", "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: 7\r\nH: 8\r\nI: 9\r\n\r\n",
        "GET /\(long) HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nX: \(long)\r\n\r\n",
    ].map { Array($0.utf8) }

    private static let responses = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1", "HTTP/1.0 301\r\nLocation: /\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 \r\nConnection: close, x\r\nX: y\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \(long)\r\n\r\n",
    ].map { Array($0.utf8) }

    private static let bodies = [
        "5\r\nhello\r\n0\r\n\r\nGET", "A;x=y\r\n0123456789\r\n3\r\nabc\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\nrest",
        "0\r\n\r\n",
        "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0;last\r\nT: v\r\n\r\n", "5\r\nhello0\r\n", "fffffffffffffff\r\nx",
        "5;a\rb\r\n", "0\r\nX: a\n\r\n",
    ].map { Array($0.utf8) }

    /// Small enough that the messages here, and what mutations make of them, reach every limit.
    private static let limits = RequestParser.Limits(headBytesMax: 160, targetBytesMax: 64, fieldsMax: 8)

    /// Feeds every prefix, shortest first, to one table: as byte by byte arrival does, and as every other
    /// way of arriving does in part, since the parser keeps nothing between calls.
    private func checkRequestPrefixes(_ message: [UInt8]) {
        let table = FieldTable()
        let whole = RequestReading(message, limits: Self.limits, table: table)
        for count in 0..<message.count {
            let part = RequestReading(Array(message.prefix(count)), limits: Self.limits, table: table)
            if part.outcome == .incomplete { continue }
            #expect(
                part.outcome == whole.outcome,
                "\(count) bytes of \(String(decoding: message, as: UTF8.self).debugDescription)")
            if part.head != nil { #expect(part.fields == whole.fields) }
        }
        if let head = whole.head {
            checkCompleteHead(head.headBytes, message, fieldsStart: head.fieldsStart, whole.fields)
        }
    }

    private func checkResponsePrefixes(_ message: [UInt8]) {
        let table = FieldTable()
        let whole = ResponseReading(message, headBytesMax: 160, table: table)
        for count in 0..<message.count {
            let part = ResponseReading(Array(message.prefix(count)), headBytesMax: 160, table: table)
            if part.outcome == .incomplete { continue }
            #expect(
                part.outcome == whole.outcome,
                "\(count) bytes of \(String(decoding: message, as: UTF8.self).debugDescription)")
            if part.head != nil { #expect(part.fields == whole.fields) }
        }
        if let head = whole.head {
            checkCompleteHead(head.headBytes, message, fieldsStart: head.fieldsStart, whole.fields)
        }
    }

    /// The plainest reader of all, which splits at CRLF, must see the same fields, and no other line end.
    private func checkCompleteHead(_ headBytes: Int, _ message: [UInt8], fieldsStart: Int, _ fields: [FieldText]) {
        let text = String(decoding: message[fieldsStart..<headBytes], as: UTF8.self)
        let lines = text.split(separator: "\r\n", omittingEmptySubsequences: false)
        #expect(lines.count == fields.count + 2 && lines.suffix(2) == ["", ""], "\(text.debugDescription)")
        for (line, field) in zip(lines, fields) {
            #expect(line.hasPrefix("\(field.name):") && line.contains(field.value))
            #expect(!line.utf8.contains { $0 == 0x0D || $0 == 0x0A || $0 == 0 })
        }
    }

    private func checkBody(_ body: [UInt8], cuts: [Int]) {
        let whole = ChunkedReading(body, cuts: [body.count])
        let pieces = ChunkedReading(body, cuts: cuts)
        #expect(pieces == whole, "\(String(decoding: body, as: UTF8.self).debugDescription) cut at \(cuts)")
    }

    @Test(arguments: requests) func requestsArriveInAnyPieces(message: [UInt8]) { checkRequestPrefixes(message) }

    @Test(arguments: responses) func responsesArriveInAnyPieces(message: [UInt8]) { checkResponsePrefixes(message) }

    @Test(arguments: bodies) func bodiesArriveInAnyTwoPieces(body: [UInt8]) {
        for cut in 0...body.count { checkBody(body, cuts: [cut, body.count]) }
        checkBody(body, cuts: Array(1...body.count))
    }

    @Test(arguments: 0..<300 as Range<UInt64>)
    func bodiesArriveInAnyPieces(seed: UInt64) {
        var mutator = Mutator(seed: seed)
        for (index, body) in Self.bodies.enumerated() {
            checkBody(body, cuts: mutator.cuts(of: body.count))
            let damaged = mutator.mutated(body, with: Self.bodies[(index + 1) % Self.bodies.count])
            checkBody(damaged, cuts: mutator.cuts(of: damaged.count))
            checkBody(damaged, cuts: Array(0...damaged.count))
        }
    }

    @Test(arguments: 0..<150 as Range<UInt64>)
    func damagedRequestsGetOneVerdict(seed: UInt64) {
        var mutator = Mutator(seed: seed)
        for (index, message) in Self.requests.enumerated() {
            checkRequestPrefixes(mutator.mutated(message, with: Self.requests[(index + 1) % Self.requests.count]))
        }
    }

    @Test(arguments: 0..<150 as Range<UInt64>)
    func damagedResponsesGetOneVerdict(seed: UInt64) {
        var mutator = Mutator(seed: seed)
        for (index, message) in Self.responses.enumerated() {
            checkResponsePrefixes(mutator.mutated(message, with: Self.responses[(index + 1) % Self.responses.count]))
        }
    }
}
