import Testing

@testable import Worker

/// The mapping in both directions, through real frames.
@Suite struct HTTP2SessionTests {
    private static let get = "GET /a HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n"

    private static func arrived(_ pair: SessionPair) throws -> HTTP2Stream { try #require(pair.arrived.first) }

    // Requests

    @Test func requestWithoutBodyArrivesAsHTTP1() throws {
        let pair = SessionPair()
        _ = pair.request(Self.get)
        let stream = try Self.arrived(pair)
        #expect(pair.text(stream) == "GET /a HTTP/1.1\r\nhost: example.org\r\naccept: */*\r\n\r\n")
        #expect(stream.hasInboundEnded)
    }

    @Test func requestWithLengthArrivesRaw() throws {
        let pair = SessionPair()
        _ = pair.request("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        #expect(
            pair.text(try Self.arrived(pair)) == "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")
    }

    @Test func chunkedRequestArrivesChunkedWithItsTrailers() throws {
        let pair = SessionPair()
        _ = pair.request(
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
        #expect(
            pair.text(try Self.arrived(pair))
                == "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
        )
    }

    @Test(arguments: [30, 64, 4096])
    func bodyIsTheSameWhateverRoomThereIs(_ room: Int) throws {
        let pair = SessionPair()
        let body = String(repeating: "0123456789", count: 500)
        _ = pair.request("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + body)
        #expect(pair.text(try Self.arrived(pair), room: room).hasSuffix("\r\n\r\n" + body))
    }

    @Test func fieldsOfTheConnectionStayBehind() throws {
        let pair = SessionPair()
        _ = pair.request("GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        #expect(pair.text(try Self.arrived(pair)) == "GET / HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n")
    }

    // Responses

    private static func response(_ text: String, method: String = "GET") throws -> (String, HTTP2Stream, SessionPair) {
        let pair = SessionPair()
        let stream = pair.request("\(method) / HTTP/1.1\r\nHost: x\r\n\r\n")
        pair.send(text, on: try arrived(pair))
        return (pair.text(stream), stream, pair)
    }

    @Test func responseWithLength() throws {
        let (text, stream, _) = try Self.response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        #expect(text == "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        #expect(stream.hasInboundEnded && stream.isClosed && stream.errorCode == 0)
    }

    @Test func chunkedResponseWithTrailers() throws {
        let (text, _, _) = try Self.response(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n")
        #expect(
            text == "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n")
    }

    @Test func responseWithoutBody() throws {
        let (text, stream, _) = try Self.response("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        #expect(text == "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        #expect(stream.isClosed)
    }

    @Test(arguments: ["204 No Content", "304 Not Modified"])
    func statusWithoutBody(_ status: String) throws {
        let (text, stream, _) = try Self.response("HTTP/1.1 \(status)\r\nEtag: 1\r\n\r\n")
        #expect(text == "HTTP/1.1 \(status)\r\netag: 1\r\n\r\n")
        #expect(stream.isClosed)
    }

    @Test func headKeepsTheLengthAndHasNoBody() throws {
        let (text, stream, _) = try Self.response("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", method: "HEAD")
        #expect(text == "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n")
        #expect(stream.isClosed)
    }

    @Test func interimResponsesComeFirst() throws {
        let (text, _, _) = try Self.response(
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        #expect(text == "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    }

    @Test func setCookieFieldsStaySeparate() throws {
        let (text, _, _) = try Self.response(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n")
        #expect(text.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"))
    }

    // Ends

    @Test func answerThatBreaksOffIsReset() throws {
        let pair = SessionPair()
        let stream = pair.request(Self.get)
        let server = try Self.arrived(pair)
        pair.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", on: server)
        server.close(isReset: true)
        pair.exchange()
        #expect(stream.isClosed && stream.errorCode == HTTP2ErrorCode.internalError.rawValue)
    }

    @Test func requestThatIsGivenUpIsCancelled() throws {
        let pair = SessionPair()
        let stream = pair.request(Self.get)
        let server = try Self.arrived(pair)
        stream.close(isReset: false)
        pair.exchange()
        #expect(server.isClosed && server.errorCode == HTTP2ErrorCode.cancel.rawValue)
    }

    // Flow control

    @Test func creditComesBackOnlyForWhatWasTaken() throws {
        var limits = HTTP2Context.Limits()
        limits.firstWindowBytes = 20_000
        limits.streamWindowBytes = 20_000
        let pair = SessionPair(limits)
        let stream = pair.request("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        let rest = pair.send(String(repeating: "x", count: 60000), on: stream)
        let server = try Self.arrived(pair)
        #expect(rest == 0)
        #expect(!server.hasInboundEnded)
        #expect(pair.server.waitingBytes == 20_000)
        let text = pair.text(server)
        #expect(pair.server.waitingBytes == 0)
        #expect(text.utf8.count > 60000)
        #expect(server.hasInboundEnded)
    }

    @Test func sendingStopsWhenThePeerTakesNothing() throws {
        let pair = SessionPair()
        _ = pair.request(Self.get)
        let server = try Self.arrived(pair)
        pair.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", on: server)
        let rest = pair.send(String(repeating: "x", count: 1_000_000), on: server)
        let waiting = 1_000_000 - rest
        #expect(waiting <= HTTP2Stream.outboundBytesMax)
        #expect(server.hasBacklog || waiting == HTTP2Stream.outboundBytesMax)
    }
}
