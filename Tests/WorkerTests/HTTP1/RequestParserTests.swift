import Testing

@testable import Worker

@Suite struct RequestParserTests {
    /// A GET with the given field lines behind Host.
    private func get(_ lines: String...) -> RequestReading {
        RequestReading("GET / HTTP/1.1\r\nHost: h\r\n" + lines.map { $0 + "\r\n" }.joined() + "\r\n")
    }

    @Test func aPlainRequestIsUnderstood() {
        let text = "GET /a?b=c HTTP/1.1\r\nHost: example.com:80\r\nAccept: */*\r\n\r\n"
        let request = RequestReading(text + "GET /next")
        #expect(request.head?.method == .get)
        #expect(request.text(request.head?.methodText) == "GET")
        #expect(request.text(request.head?.target) == "/a?b=c")
        #expect(request.text(request.head?.path) == "/a?b=c")
        #expect(request.text(request.head?.authority) == "example.com:80")
        #expect(request.head?.targetForm == .origin)
        #expect(request.head?.minorVersion == 1)
        #expect(request.head?.framing == BodyFraming.none)
        #expect(request.head?.isPersistent == true)
        #expect(request.head?.fieldsStart == 21)
        #expect(request.head?.headBytes == text.utf8.count)
        #expect(request.fields.map(\.name) == ["Host", "Accept"])
    }

    @Test(arguments: [
        ("GET", Method.get), ("HEAD", .head), ("POST", .post), ("PUT", .put), ("DELETE", .delete),
        ("OPTIONS", .options), ("TRACE", .trace), ("PATCH", .patch), ("get", .other), ("PROPFIND", .other),
        ("M-S!", .other),
    ])
    func methodsAreCaseSensitive(text: String, method: Method) {
        let request = RequestReading("\(text) / HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(request.head?.method == method)
        #expect(request.text(request.head?.methodText) == text)
    }

    @Test(arguments: [
        "GET /\r\nHost: h\r\n\r\n", "GET  / HTTP/1.1\r\n", "GET\t/ HTTP/1.1\r\n", "GET /a b HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n", " GET / HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "GET HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\0 HTTP/1.1\r\n", "GET /\u{01} HTTP/1.1\r\n", "GET /\u{7F} HTTP/1.1\r\n", "GET / HTTP/1.1\rX",
        "G@T / HTTP/1.1\r\n", "GET / http/1.1\r\n", "GET / HTTP/11\r\n", "GET / HTTP/1.10\r\n",
        "GET / ICAP/1.0\r\n",
        "GET / HTTP/1.1\n", "GET / HTTP/1,1\r\n", "GET / HTTP/x.1\r\n", "\u{16}\u{03}\u{01}",
        "GET /#frag HTTP/1.1\r\n",
        "GET /a#b?c HTTP/1.1\r\n", "GET / HTTP/2.0 \r\n",
    ])
    func aBrokenRequestLineIsMalformed(text: String) {
        #expect(RequestReading(text).refusal == .malformed)
    }

    @Test(arguments: ["HTTP/2.0", "HTTP/3.7", "HTTP/0.9"])
    func otherMajorVersionsAreUnsupported(version: String) {
        #expect(RequestReading("GET / \(version)\r\n\r\n").refusal == .unsupportedVersion)
    }

    @Test func theHTTP2PrefaceIsAnUnsupportedVersion() {
        #expect(RequestReading("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").refusal == .unsupportedVersion)
    }

    @Test func laterMinorVersionsAreSpokenToAs11() {
        #expect(RequestReading("GET / HTTP/1.7\r\nHost: h\r\n\r\n").head?.minorVersion == 1)
        #expect(RequestReading("GET / HTTP/1.0\r\n\r\n").head?.minorVersion == 0)
    }

    @Test func connectIsNotAllowed() {
        #expect(RequestReading("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n").refusal == .methodNotAllowed)
        #expect(RequestReading("CONNECT / HTTP/1.1\r\n\r\n").refusal == .methodNotAllowed)
    }

    // MARK: Target (RFC 9112 §3.2)

    @Test(arguments: [
        ("http://a.test/p?q", "a.test", "/p?q"), ("HTTP://a.test:81/", "a.test:81", "/"),
        ("https://[::1]:8/x", "[::1]:8", "/x"),
        ("http://a.test", "a.test", ""), ("http://a.test?q", "a.test", "?q"),
    ])
    func anAbsoluteTargetOverridesHost(target: String, authority: String, path: String) {
        let request = RequestReading("GET \(target) HTTP/1.1\r\nHost: other\r\n\r\n")
        #expect(request.head?.targetForm == .absolute)
        #expect(request.text(request.head?.authority) == authority)
        #expect(request.text(request.head?.path) == path)
    }

    @Test(arguments: [
        "path", "http://", "http:///p", "https://", "ftp://h/", "http:/h", "http://u@h/", "http://u:p@h/",
        "http://:80/",
        "http://h:8x/", "http://a,b/", "http://[::1/", "http://[]/", "*x", "?q", "h:80", "http://é/",
        "http://h\\x/",
    ])
    func otherTargetsAreMalformed(target: String) {
        #expect(RequestReading("GET \(target) HTTP/1.1\r\nHost: h\r\n\r\n").refusal == .malformed)
    }

    @Test func theAsteriskIsForOptionsOnly() {
        #expect(RequestReading("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").head?.targetForm == .asterisk)
        #expect(RequestReading("GET * HTTP/1.1\r\nHost: h\r\n\r\n").refusal == .malformed)
    }

    @Test func bytesAboveASCIIMayStandInATarget() {
        #expect(RequestReading("GET /é HTTP/1.1\r\nHost: h\r\n\r\n").head != nil)
    }

    // MARK: Host (RFC 9112 §3.2)

    @Test(arguments: ["h", "h:80", "h:", "127.0.0.1:8080", "[2001:db8::1]", "[::1]:443", "a_b.test", "x%41", ""])
    func aHostOfTheGrammarPasses(host: String) {
        let request = RequestReading("GET / HTTP/1.1\r\nHost: \(host)\r\n\r\n")
        #expect(request.text(request.head?.authority) == host)
    }

    @Test(arguments: [
        "a b", "a/b", "a@b", "a, b", "a,b", "a?b", "a#b", "h:8x", "a:b", "h:1:2", ":80", "[::1", "::1", "[]",
        "[::1]x",
        "h]", "é", "a\\b", "\"a\"", "<h>", "[a[b]",
    ])
    func anyOtherHostIsMalformed(host: String) {
        #expect(RequestReading("GET / HTTP/1.1\r\nHost: \(host)\r\n\r\n").refusal == .malformed)
    }

    @Test func hostIsRequiredOfHTTP11Alone() {
        #expect(RequestReading("GET / HTTP/1.1\r\n\r\n").refusal == .malformed)
        #expect(RequestReading("GET / HTTP/1.0\r\n\r\n").head?.authority == 0..<0)
    }

    @Test(arguments: ["1.0", "1.1"])
    func twoHostsAreMalformed(version: String) {
        #expect(RequestReading("GET / HTTP/\(version)\r\nHost: h\r\nhost: h\r\n\r\n").refusal == .malformed)
    }

    // MARK: Framing (RFC 9112 §6.3)

    @Test func framingComesFromTheFields() {
        #expect(get("Content-Length: 7").head?.framing == .length(7))
        #expect(get("Content-Length: 0").head?.framing == BodyFraming.none)
        #expect(get("Transfer-Encoding: chunked").head?.framing == .chunked)
        #expect(get("Content-Length: 7", "Transfer-Encoding: chunked").refusal == .ambiguousFraming)
        #expect(get("Transfer-Encoding: gzip").refusal == .unknownTransferCoding)
    }

    @Test func chunkedInHTTP10IsAmbiguous() {
        let request = RequestReading("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")
        #expect(request.refusal == .ambiguousFraming)
    }

    // MARK: Connection and expectations

    @Test func persistenceFollowsVersionAndConnection() {
        #expect(get("Connection: close").head?.isPersistent == false)
        #expect(get("Connection: close, keep-alive").head?.isPersistent == false)
        #expect(RequestReading("GET / HTTP/1.0\r\n\r\n").head?.isPersistent == false)
        #expect(RequestReading("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").head?.isPersistent == true)
        #expect(RequestReading("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n").head?.isPersistent == false)
    }

    @Test func endlessConnectionOptionsAreMalformed() {
        #expect(get("Connection: " + String(repeating: "x,", count: 65)).refusal == .malformed)
    }

    @Test func continueIsExpectedOfHTTP11Alone() {
        #expect(get("Expect: 100-Continue").head?.expectsContinue == true)
        #expect(get("Expect: 200-ok").head?.expectsContinue == false)
        #expect(RequestReading("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").head?.expectsContinue == false)
    }

    @Test(arguments: [
        (["Connection: upgrade", "Upgrade: websocket"], true),
        (["Connection: Upgrade, keep-alive", "Upgrade: a/1, b"], true),
        (["Upgrade: websocket"], false),
        (["Connection: upgrade"], false),
        (["Connection: upgrade", "Upgrade: websocket", "Upgrade: x"], false),
        (["Connection: upgrade", "Upgrade: websocket", "Content-Length: 5"], false),
    ])
    func anUpgradeIsWantedWhenItIsClear(lines: [String], isWanted: Bool) {
        let request = RequestReading("GET / HTTP/1.1\r\nHost: h\r\n\(lines.joined(separator: "\r\n"))\r\n\r\n")
        #expect(request.head?.wantsUpgrade == isWanted)
    }

    @Test(arguments: ["h2c", "H2C", "websocket, h2c", "h2c,x", "h2c/2"])
    func cleartextHTTP2IsNeverWanted(upgrade: String) {
        #expect(get("Connection: upgrade", "Upgrade: \(upgrade)").head?.wantsUpgrade == false)
    }

    @Test func anUpgradeOfHTTP10IsNotWanted() {
        let request = RequestReading("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        #expect(request.head?.wantsUpgrade == false)
    }

    @Test func trailersAreAcceptedWhereTESaysSo() {
        #expect(get("TE: gzip, Trailers").head?.acceptsTrailers == true)
        #expect(get("TE: trailersx").head?.acceptsTrailers == false)
        #expect(get().head?.acceptsTrailers == false)
    }

    // MARK: Limits

    @Test func theTargetMayBeAsLongAsTheLimit() {
        let limits = RequestParser.Limits(targetBytesMax: 10)
        let fits = RequestReading("GET /123456789 HTTP/1.1\r\nHost: h\r\n\r\n", limits: limits)
        #expect(fits.head != nil)
        #expect(RequestReading("GET /1234567890 HTTP/1.1\r\nHost: h\r\n\r\n", limits: limits).refusal == .targetTooLong)
        #expect(RequestReading("GET /1234567890", limits: limits).refusal == .targetTooLong)
        #expect(RequestReading("GET /123456789", limits: limits).outcome == .incomplete)
    }

    @Test func theHeadMayBeAsLongAsTheLimit() {
        let head = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        let limits = RequestParser.Limits(headBytesMax: head.utf8.count)
        #expect(RequestReading(head + "body", limits: limits).head != nil)
        let tight = RequestParser.Limits(headBytesMax: head.utf8.count - 1)
        #expect(RequestReading(head, limits: tight).refusal == .headTooLarge)
        #expect(
            RequestReading("GET / HTTP/1.1\r\nX: \(String(repeating: "a", count: 99))", limits: tight).refusal
                == .headTooLarge)
    }

    @Test func theMethodMayBeAsLongAsTheLimit() {
        let most = String(repeating: "M", count: RequestParser.methodBytesMax)
        #expect(RequestReading("\(most) / HTTP/1.1\r\nHost: h\r\n\r\n").head?.methodText == 0..<most.utf8.count)
        #expect(RequestReading("\(most)").outcome == .incomplete)
        #expect(RequestReading("\(most)M").refusal == .malformed)
        #expect(RequestReading("\(most)M / HTTP/1.1\r\nHost: h\r\n\r\n").refusal == .malformed)
    }

    @Test func fieldsUpToTheLimitPass() {
        let limits = RequestParser.Limits(fieldsMax: 2)
        #expect(RequestReading("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n", limits: limits).head != nil)
        #expect(
            RequestReading("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\n\r\n", limits: limits).refusal
                == .tooManyFields)
    }

    @Test(arguments: [("", 0), ("\r\n", 2), ("\r\n\r\nGET", 4), ("\r", 0), ("\n\r\n", 0), ("\r\n\rG", 2)])
    func emptyLinesBeforeARequestAreCounted(text: String, count: Int) {
        let found = RequestParser.leadingEmptyLines(Array(text.utf8).span)
        #expect(found == count)
    }
}
