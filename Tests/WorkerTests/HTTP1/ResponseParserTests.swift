import Testing

@testable import Worker

@Suite struct ResponseParserTests {
    private func ok(_ lines: String..., version: String = "1.1", answering method: Method = .get) -> ResponseReading {
        ResponseReading(
            "HTTP/\(version) 200 OK\r\n" + lines.map { $0 + "\r\n" }.joined() + "\r\n", answering: method)
    }

    @Test func aPlainResponseIsUnderstood() {
        let text = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nServer: s\r\n\r\n"
        let response = ResponseReading(text + "hello")
        #expect(response.head?.status == 404)
        #expect(response.text(response.head?.statusText) == "404 Not Found")
        #expect(response.head?.framing == .length(5))
        #expect(response.head?.contentLength == 5)
        #expect(response.head?.isPersistent == true)
        #expect(response.head?.fieldsStart == 24)
        #expect(response.head?.headBytes == text.utf8.count)
        #expect(response.fields.map(\.name) == ["Content-Length", "Server"])
    }

    @Test(arguments: [("200 OK", 200), ("200 ", 200), ("204", 204), ("999 \tx é", 999), ("100 Continue", 100)])
    func statusLinesWithAndWithoutReasonPass(text: String, status: Int) {
        let response = ResponseReading("HTTP/1.1 \(text)\r\n\r\n")
        #expect(response.head?.status == status)
        #expect(response.text(response.head?.statusText) == text)
    }

    @Test(arguments: [
        "HTTP/2.0 200 OK\r\n", "http/1.1 200 OK\r\n", "HTTP/1.1  200 OK\r\n", "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 000 OK\r\n", "HTTP/1.1 099 OK\r\n", "HTTP/1.1 2x0 OK\r\n", "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200 O\0K\r\n",
        "HTTP/1.1 200 OK\rX", "HTTP/1.1\t200 OK\r\n", "HTTP/1.x 200 OK\r\n", "HTTP/1.1 200\n",
        "HTTP/1.1 200-OK\r\n",
        "\r\nHTTP/1.1 200 OK\r\n", "SSH-2.0-OpenSSH", "\u{16}\u{03}",
    ])
    func aBrokenStatusLineIsMalformed(text: String) {
        #expect(ResponseReading(text + "\r\n").outcome == .malformed)
    }

    @Test(arguments: [
        "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length : 5\r\n", "X: a\r\n b\r\n", "nonsense\r\n", "X: a\n",
    ])
    func ambiguousFramingIsMalformedWhateverTheBody(lines: String) {
        #expect(ResponseReading("HTTP/1.1 200 OK\r\n\(lines)\r\n").outcome == .malformed)
        #expect(ResponseReading("HTTP/1.1 304 OK\r\n\(lines)\r\n").outcome == .malformed)
        #expect(ResponseReading("HTTP/1.1 200 OK\r\n\(lines)\r\n", answering: .head).outcome == .malformed)
    }

    @Test func endlessConnectionOptionsAreMalformed() {
        #expect(ok("Connection: " + String(repeating: "x,", count: 65)).outcome == .malformed)
    }

    // MARK: Framing (RFC 9112 §6.3)

    @Test func framingComesFromTheFields() {
        #expect(ok("Content-Length: 0").head?.framing == BodyFraming.none)
        #expect(ok("Transfer-Encoding: chunked").head?.framing == .chunked)
        #expect(ok().head?.framing == .untilClose)
    }

    @Test func aBodyUntilCloseEndsTheConnection() {
        #expect(ok().head?.isPersistent == false)
        #expect(ok("Connection: keep-alive", version: "1.0").head?.isPersistent == false)
    }

    @Test(arguments: [100, 101, 103, 199, 204, 304])
    func someStatusesHaveNoBodyWhateverTheFieldsSay(status: Int) {
        for line in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let response = ResponseReading("HTTP/1.1 \(status) X\r\n\(line)\r\n\r\n")
            #expect(response.head?.framing == BodyFraming.none)
            #expect(response.head?.isInterim == (status < 200))
        }
    }

    @Test func anAnswerToHeadHasNoBodyButKeepsItsLength() {
        let response = ok("Content-Length: 5", answering: .head)
        #expect(response.head?.framing == BodyFraming.none)
        #expect(response.head?.contentLength == 5)
        #expect(response.head?.isPersistent == true)
        #expect(ok(answering: .head).head?.isPersistent == true)
    }

    @Test func chunkedInHTTP10IsMalformed() {
        #expect(ok("Transfer-Encoding: chunked", version: "1.0").outcome == .malformed)
    }

    @Test func persistenceFollowsVersionAndConnection() {
        #expect(ok("Content-Length: 1", "Connection: close").head?.isPersistent == false)
        #expect(ok("Content-Length: 1", version: "1.0").head?.isPersistent == false)
        #expect(ok("Content-Length: 1", "Connection: keep-alive", version: "1.0").head?.isPersistent == true)
    }

    // MARK: Limits

    @Test func theHeadMayBeAsLongAsTheLimit() {
        let head = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
        #expect(ResponseReading(head + "body", headBytesMax: head.utf8.count).head != nil)
        #expect(ResponseReading(head, headBytesMax: head.utf8.count - 1).outcome == .headTooLarge)
        #expect(
            ResponseReading("HTTP/1.1 200 " + String(repeating: "x", count: 50), headBytesMax: 40).outcome
                == .headTooLarge)
    }

    @Test func moreFieldsThanTheLimitAreMalformed() {
        let most = String(repeating: "A: b\r\n", count: ResponseParser.fieldsMax)
        #expect(ResponseReading("HTTP/1.1 200 OK\r\n\(most)\r\n").head != nil)
        #expect(ResponseReading("HTTP/1.1 200 OK\r\n\(most)A: b\r\n\r\n").outcome == .malformed)
    }
}
