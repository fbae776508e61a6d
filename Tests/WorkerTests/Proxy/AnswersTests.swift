import Testing

@testable import Worker

@Suite struct LocalAnswerTests {
    private static let errors = (0...UInt8.max).compactMap(ErrorType.init(rawValue:)).filter { $0.status != nil }

    private func answer(
        _ error: ErrorType, closes: Bool = false, isHead: Bool = false, keepsAlive: Bool = false, retryAfter: Int = 1
    ) -> (text: String, bodyBytes: Int) {
        let output = ByteBuffer(capacity: 512)
        let bodyBytes = LocalAnswer.write(
            error, status: error.status ?? 0, closes: closes, isHead: isHead, keepsAlive: keepsAlive,
            retryAfterSeconds: retryAfter, to: output)
        return (output.text, bodyBytes)
    }

    /// Reads every answer as a client would.
    @Test func everyAnswerIsAWholeMessageOfItsLength() throws {
        for error in Self.errors {
            let (text, bodyBytes) = answer(error, closes: true)
            let reading = ResponseReading(text)
            let head = try #require(reading.head, "\(error)")
            #expect(head.status == error.status)
            #expect(head.framing == .length(bodyBytes))
            #expect(head.headBytes + bodyBytes == text.utf8.count, "\(error)")
            #expect(head.connection.isClose)
            #expect(text.hasSuffix("\(error.sentence)\n"))
        }
    }

    @Test func anAnswerToHeadHasTheSameHeadAndNoBody() throws {
        for error in Self.errors {
            let full = answer(error).text
            let (text, bodyBytes) = answer(error, isHead: true)
            #expect(bodyBytes == 0)
            #expect(text.hasSuffix("\r\n\r\n"))
            #expect(full.hasPrefix(text))
        }
    }

    @Test func anAnswerReadsWell() {
        #expect(
            answer(.connectRefused, closes: true).text
                == """
                HTTP/1.1 502 Bad Gateway\r
                Content-Type: text/plain\r
                Content-Length: 55\r
                Connection: close\r
                \r
                502 Bad Gateway
                the backend refused the connection

                """.replacingLength(of: "502 Bad Gateway\nthe backend refused the connection\n"))
    }

    @Test func overloadSaysWhenToComeAgain() {
        for error in Self.errors {
            #expect(answer(error, retryAfter: 17).text.contains("\r\nRetry-After: 17\r\n") == (error.status == 503))
        }
    }

    /// RFC 9110 §15.5.6.
    @Test func aMethodThatIsNotAllowedNamesTheOnesThatAre() {
        #expect(
            answer(.methodNotAllowed).text.contains(
                "\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH\r\n"))
        #expect(!answer(.protocolError).text.contains("Allow"))
    }

    @Test func theConnectionsFateIsSaid() {
        #expect(!answer(.upstreamReset).text.contains("Connection"))
        #expect(answer(.upstreamReset, closes: true).text.contains("\r\nConnection: close\r\n"))
        #expect(answer(.upstreamReset, keepsAlive: true).text.contains("\r\nConnection: keep-alive\r\n"))
    }
}

extension String {
    /// The text with the number in its Content-Length line set to the length of `body`.
    fileprivate func replacingLength(of body: String) -> String {
        let lines = split(separator: "\r\n", omittingEmptySubsequences: false)
        return lines.map { $0.hasPrefix("Content-Length:") ? "Content-Length: \(body.utf8.count)" : String($0) }
            .joined(separator: "\r\n")
    }
}

@Suite struct RefusedRequestTests {
    private func parts(_ text: String, targetBytesMax: Int = 100) -> [String] {
        let bytes = Array(text.utf8)
        let (method, target) = RefusedRequest.parts(bytes.span, targetBytesMax: targetBytesMax)
        return [method, target].map { String(decoding: bytes[$0], as: UTF8.self) }
    }

    private func retained(_ text: String) -> (method: String, target: String, url: String) {
        let bytes = Array(text.utf8)
        let buffer = ByteBuffer(capacity: BufferPool.Size.medium.rawValue)
        let head = RefusedRequest.retain(bytes.span, into: buffer)
        let kept = buffer.bytes
        let url = ByteBuffer(capacity: 65536)
        RequestURL.write(kept.span, head, to: url)
        return (
            String(decoding: kept[head.methodText], as: UTF8.self), String(decoding: kept[head.target], as: UTF8.self),
            url.text
        )
    }

    @Test func methodAndTargetAreMadeOut() {
        #expect(parts("GET /a?b HTTP/9.9\r\n") == ["GET", "/a?b"])
        #expect(parts("GET /a") == ["GET", "/a"])
        #expect(parts("G@T /a HTTP/1.1") == ["", ""])
        #expect(parts("GET") == ["", ""])
        #expect(parts(" GET /") == ["", ""])
        #expect(parts("") == ["", ""])
        #expect(parts("GET  /a") == ["GET", ""])
    }

    @Test func whatIsNoTargetEndsIt() {
        #expect(parts("GET /a\u{0}b HTTP/1.1") == ["GET", "/a"])
        #expect(parts("GET /a\r\nX: 1") == ["GET", "/a"])
    }

    @Test func longWordsAreCutOrLeftOut() {
        let long = String(repeating: "A", count: 33)
        #expect(parts("\(long) /a") == ["", ""])
        #expect(parts("GET /\(long)", targetBytesMax: 5) == ["GET", "/AAAA"])
    }

    @Test func theTraceShowsWhatWasAskedFor() {
        #expect(retained("GET /a?b HTTP/9.9\r\n") == ("GET", "/a?b", "/a?b"))
        #expect(retained("GET http://site.test/x HTTP/9.9\r\n").url == "http://site.test/x")
        #expect(retained("\u{1}\u{2}") == ("", "", ""))
    }

    @Test(arguments: [
        "GET http://user:s3cret@site.test/x HTTP/1.1\r\n", "GET https://s3cret@site.test/x HTTP/1.1\r\n",
        "GET http://a@b:s3cret@site.test/x HTTP/1.1\r\n",
    ])
    func credentialsStayOut(line: String) {
        let (_, target, url) = retained(line)
        #expect(!target.contains("s3cret"))
        #expect(url.hasSuffix("://site.test/x"))
    }

    @Test func anAtSignInAPathIsNoCredential() {
        #expect(retained("GET http://site.test/@me HTTP/9.9").url == "http://site.test/@me")
        #expect(retained("GET /@me HTTP/9.9").url == "/@me")
    }

    /// The target is cut, or ends at a byte that cannot be in it, before the authority does.
    @Test(arguments: [
        "GET http://user:s3cret\(String(repeating: "x", count: 2000))@site.test/ HTTP/1.1\r\n",
        "GET http://user:s3cret\u{1}@site.test/ HTTP/1.1\r\n",
    ])
    func credentialsWithoutTheirEndStayOutToo(line: String) {
        let (_, target, url) = retained(line)
        #expect(!target.contains("s3cret"))
        #expect(!url.contains("s3cret"))
    }
}
