import Testing

@testable import Worker

/// Heads as they go out, byte for byte. Lines are joined by CRLF, and an empty line ends each head.
@Suite struct HeadWriterTests {
    private static let peer = "192.0.2.7"

    private static func head(_ lines: [String]) -> String { (lines + ["", ""]).joined(separator: "\r\n") }

    /// The head that goes upstream for the request of these lines.
    private func request(
        _ lines: String..., peer: String = peer, identity: TraceIdentity? = nil, spanID: UInt64 = 0,
        certificateLines: String = ""
    ) throws -> String {
        let bytes = Array(Self.head(lines).utf8)
        let table = FieldTable()
        guard case .complete(let head) = RequestParser().parse(bytes.span, into: table) else {
            throw NotAHead(lines: lines)
        }
        var additions = HeadWriter.RequestAdditions(fallbackHost: "backend.test:9001", identity: identity)
        additions.attemptSpanID = spanID
        additions.certificateLines = Array(certificateLines.utf8)
        let output = ByteBuffer(capacity: 65536)
        let peerBytes = Array(peer.utf8)
        HeadWriter.writeRequest(bytes.span, head, table, peer: peerBytes.span, additions, to: output)
        let bytesMax = HeadWriter.requestBytesMax(
            head, fallbackHost: additions.fallbackHost, certificateLines: additions.certificateLines)
        #expect(output.readableBytes <= bytesMax)
        return output.text
    }

    /// The head that goes to the client for the response of these lines.
    private func response(
        _ lines: String..., to method: Method = .get, with additions: HeadWriter.ResponseAdditions = .init()
    ) throws -> String {
        let bytes = Array(Self.head(lines).utf8)
        let table = FieldTable()
        guard case .complete(let head) = ResponseParser().parse(bytes.span, answering: method, into: table) else {
            throw NotAHead(lines: lines)
        }
        let output = ByteBuffer(capacity: 65536)
        HeadWriter.writeResponse(bytes.span, head, table, additions, to: output)
        #expect(output.readableBytes <= HeadWriter.responseBytesMax(head))
        return output.text
    }

    private struct NotAHead: Error { let lines: [String] }

    private static let forwarded = [
        "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: http", "X-Forwarded-Host: site.test",
    ]

    // MARK: Requests

    @Test func fieldsKeepTheirBytesAndTheirOrder() throws {
        let text = try request(
            "GET /a?b=%20c HTTP/1.1", "hOsT: site.test", "Accept:   */*", "Cookie: a=1", "cookie: b=2", "X-Empty:")
        #expect(
            text
                == Self.head(
                    [
                        "GET /a?b=%20c HTTP/1.1", "hOsT: site.test", "Accept:   */*", "Cookie: a=1", "cookie: b=2",
                        "X-Empty:",
                    ]
                        + Self.forwarded))
    }

    @Test func hopByHopFieldsEndHere() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", "Connection: keep-alive", "Keep-Alive: timeout=5", "X-A: 1",
            "Proxy-Connection: keep-alive", "TE: gzip", "X-B: 2", "Upgrade: websocket", "HTTP2-Settings: AAMAAABk")
        #expect(text == Self.head(["GET / HTTP/1.1", "Host: site.test", "X-A: 1", "X-B: 2"] + Self.forwarded))
    }

    @Test func fieldsThatConnectionNamesEndHere() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", "X-Secret: 1", "X-Kept: 2", "Connection: close, x-secret, , X-Other",
            "x-other: 3")
        #expect(text == Self.head(["GET / HTTP/1.1", "Host: site.test", "X-Kept: 2"] + Self.forwarded))
    }

    @Test func connectionCannotTakeAwayWhatFramesTheRequest() throws {
        let text = try request(
            "POST / HTTP/1.1", "Host: site.test", "Content-Length: 5", "Connection: content-length, host")
        #expect(text == Self.head(["POST / HTTP/1.1", "Host: site.test", "Content-Length: 5"] + Self.forwarded))
    }

    @Test func chunkedFramingIsWrittenAnew() throws {
        let text = try request(
            "POST / HTTP/1.1", "Host: site.test", "transfer-encoding: CHUNKED", "Trailer: X-Sum")
        #expect(
            text
                == Self.head(
                    ["POST / HTTP/1.1", "Host: site.test", "Trailer: X-Sum"] + Self.forwarded
                        + ["Transfer-Encoding: chunked"]))
    }

    @Test(arguments: [
        ("GET http://site.test/a?b HTTP/1.1", "GET /a?b HTTP/1.1"), ("GET http://site.test HTTP/1.1", "GET / HTTP/1.1"),
        ("GET http://site.test?b HTTP/1.1", "GET /?b HTTP/1.1"),
        ("OPTIONS http://site.test HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("OPTIONS http://site.test/ HTTP/1.1", "OPTIONS / HTTP/1.1"),
        ("GET HTTPS://site.test/a HTTP/1.1", "GET /a HTTP/1.1"),
    ])
    func absoluteFormBecomesOriginFormWithItsOwnHost(line: String, written: String) throws {
        let text = try request(line, "Host: other.test", "X-A: 1")
        #expect(text == Self.head([written, "Host: site.test", "X-A: 1"] + Self.forwarded))
    }

    @Test func asteriskFormStays() throws {
        let text = try request("OPTIONS * HTTP/1.1", "Host: site.test")
        #expect(text == Self.head(["OPTIONS * HTTP/1.1", "Host: site.test"] + Self.forwarded))
    }

    @Test func anOldClientWithoutHostGetsTheBackendsName() throws {
        let text = try request("GET /a HTTP/1.0", "X-A: 1")
        #expect(
            text
                == Self.head([
                    "GET /a HTTP/1.1", "Host: backend.test:9001", "X-A: 1", "X-Forwarded-For: 192.0.2.7",
                    "X-Forwarded-Proto: http",
                ]))
    }

    @Test func anOldClientsHostIsKept() throws {
        let text = try request("GET /a HTTP/1.0", "Host: site.test", "Expect: 100-continue")
        #expect(text == Self.head(["GET /a HTTP/1.1", "Host: site.test"] + Self.forwarded))
    }

    /// RFC 9112 §2.3: an intermediary sends its own version.
    @Test func aVersionThatIsYetToComeIsNotPassedOn() throws {
        let text = try request("GET /a HTTP/1.7", "Host: site.test")
        #expect(text == Self.head(["GET /a HTTP/1.1", "Host: site.test"] + Self.forwarded))
    }

    @Test func forwardedAddressesAreAppended() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", "X-Forwarded-For: 10.0.0.1", "X-A: 1",
            "x-forwarded-for: 10.0.0.2, 10.0.0.3", "X-Forwarded-For:", peer: "2001:db8::1")
        #expect(
            text
                == Self.head([
                    "GET / HTTP/1.1", "Host: site.test", "X-A: 1",
                    "X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 2001:db8::1", "X-Forwarded-Proto: http",
                    "X-Forwarded-Host: site.test",
                ]))
    }

    @Test func whatAClientClaimsAboutProtocolAndHostIsReplaced() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test")
        #expect(text == Self.head(["GET / HTTP/1.1", "Host: site.test"] + Self.forwarded))
    }

    @Test func whatAClientClaimsAboutItsCertificateIsReplaced() throws {
        let claim = "X-SSL-Client-S-DN: CN=admin"
        let lines = ["GET / HTTP/1.1", "Host: site.test"]
        #expect(
            try request(lines[0], lines[1], claim, certificateLines: "X-SSL-Client-Verify: NONE\r\n")
                == Self.head(lines + Self.forwarded + ["X-SSL-Client-Verify: NONE"]))
        #expect(
            try request(lines[0], lines[1], claim) == Self.head(lines + [claim] + Self.forwarded),
            "where nobody is asked, it is a field like any other")
    }

    @Test func expectationsGoOn() throws {
        let text = try request("PUT / HTTP/1.1", "Host: site.test", "Content-Length: 3", "Expect: 100-continue")
        #expect(text.contains("\r\nExpect: 100-continue\r\n"))
    }

    @Test func aClientThatTakesTrailersIsAnnounced() throws {
        let text = try request("GET / HTTP/1.1", "Host: site.test", "TE: gzip;q=0.5, Trailers", "Connection: TE")
        #expect(
            text
                == Self.head(
                    ["GET / HTTP/1.1", "Host: site.test"] + Self.forwarded + ["TE: trailers", "Connection: TE"]))
    }

    @Test func anUpgradeGoesOn() throws {
        let text = try request(
            "GET /ws HTTP/1.1", "Host: site.test", "Connection: keep-alive, Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Key: x3JJ")
        #expect(
            text
                == Self.head(
                    ["GET /ws HTTP/1.1", "Host: site.test", "Upgrade: websocket", "Sec-WebSocket-Key: x3JJ"]
                        + Self.forwarded + ["Connection: Upgrade"]))
    }

    @Test func anUpgradeWithTrailersNamesBoth() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", "Connection: Upgrade, TE", "Upgrade: websocket", "TE: trailers")
        #expect(text.hasSuffix("TE: trailers\r\nConnection: Upgrade, TE\r\n\r\n"))
    }

    @Test func anUpgradeToCleartextHTTP2IsNotPassedOn() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABk")
        #expect(text == Self.head(["GET / HTTP/1.1", "Host: site.test"] + Self.forwarded))
    }

    private static func identity(keepsTraceState: Bool, flags: UInt8 = 1) -> TraceIdentity {
        var identity = TraceIdentity()
        identity.traceIDHigh = 0x0AF7_6519_16CD_43DD
        identity.traceIDLow = 0x8448_EB21_1C80_319C
        identity.flags = flags
        identity.keepsTraceState = keepsTraceState
        return identity
    }

    private static let caller = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    @Test func withoutTracingTraceFieldsGoThrough() throws {
        let text = try request("GET / HTTP/1.1", "Host: site.test", Self.caller, "tracestate: a=1")
        #expect(
            text
                == Self.head(["GET / HTTP/1.1", "Host: site.test", Self.caller, "tracestate: a=1"] + Self.forwarded))
    }

    @Test func withTracingTheAttemptIsTheBackendsParent() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", Self.caller, "tracestate: a=1", "Tracestate: b=2",
            identity: Self.identity(keepsTraceState: true), spanID: 0xF067_AA0B)
        #expect(
            text
                == Self.head(
                    ["GET / HTTP/1.1", "Host: site.test", "tracestate: a=1", "Tracestate: b=2"] + Self.forwarded
                        + ["traceparent: 00-0af7651916cd43dd8448eb211c80319c-00000000f067aa0b-01"]))
    }

    @Test func aTraceThatBeginsHereHasNoForeignState() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", "traceparent: nonsense", "tracestate: a=1",
            identity: Self.identity(keepsTraceState: false, flags: 3), spanID: 7)
        #expect(
            text
                == Self.head(
                    ["GET / HTTP/1.1", "Host: site.test"] + Self.forwarded
                        + ["traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000007-03"]))
    }

    @Test func everyTraceparentOfTheClientIsReplacedByOne() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", Self.caller, Self.caller,
            identity: Self.identity(keepsTraceState: false), spanID: 7)
        #expect(text.components(of: "traceparent:") == 1)
    }

    @Test func anUnsampledTraceIsPassedOnAsSuch() throws {
        let text = try request(
            "GET / HTTP/1.1", "Host: site.test", Self.caller,
            identity: Self.identity(keepsTraceState: true, flags: 0xF8), spanID: 7)
        #expect(text.contains("-0000000000000007-00\r\n"))
    }

    // MARK: Responses

    @Test func responsesKeepTheirBytesAndTheirOrder() throws {
        let text = try response(
            "HTTP/1.1 404 Not  Here", "Set-Cookie: a=1", "Date: x", "set-cookie: b=2", "Content-Length: 3")
        #expect(
            text
                == Self.head([
                    "HTTP/1.1 404 Not  Here", "Set-Cookie: a=1", "Date: x", "set-cookie: b=2", "Content-Length: 3",
                ]))
    }

    @Test func aBackendsHopByHopFieldsEndHere() throws {
        let text = try response(
            "HTTP/1.1 200 OK", "Connection: close, X-Private", "Keep-Alive: 5", "X-Private: 1", "X-A: 1",
            "Proxy-Connection: close", "Upgrade: h2c", "Content-Length: 0")
        #expect(text == Self.head(["HTTP/1.1 200 OK", "X-A: 1", "Content-Length: 0"]))
    }

    @Test func anOldBackendIsAnsweredForInOurVersion() throws {
        let text = try response("HTTP/1.0 200 OK", "Content-Length: 0", with: .init(keepsAlive: true))
        #expect(text == Self.head(["HTTP/1.1 200 OK", "Content-Length: 0", "Connection: keep-alive"]))
    }

    @Test(arguments: ["HTTP/1.1 200", "HTTP/1.1 200 "])
    func aStatusLineWithoutAReasonKeepsItsSpace(line: String) throws {
        #expect(try response(line, "Content-Length: 0") == "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n")
    }

    @Test func chunksAreAnnounced() throws {
        let text = try response(
            "HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum", with: .init(writesChunks: true))
        #expect(text == Self.head(["HTTP/1.1 200 OK", "Trailer: X-Sum", "Transfer-Encoding: chunked"]))
    }

    @Test func aClientWithoutChunksHearsNothingOfThem() throws {
        let text = try response(
            "HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum", with: .init(closes: true))
        #expect(text == Self.head(["HTTP/1.1 200 OK", "Connection: close"]))
    }

    /// RFC 9110 §8.6: a server must not send Content-Length with 1xx and 204.
    @Test(arguments: ["HTTP/1.1 204 No Content", "HTTP/1.1 103 Early Hints"])
    func whereNoBodyCanBeNoLengthIsSent(line: String) throws {
        #expect(try response(line, "Content-Length: 5", "Link: </a>") == Self.head([line, "Link: </a>"]))
    }

    @Test func aLengthThatOnlyDescribesIsKept() throws {
        let lines = ["HTTP/1.1 200 OK", "Content-Length: 500"]
        #expect(try response(lines[0], lines[1], to: .head) == Self.head(lines))
        #expect(
            try response("HTTP/1.1 304 Not Modified", lines[1]) == Self.head(["HTTP/1.1 304 Not Modified", lines[1]]))
    }

    @Test func switchingProtocolsNamesTheProtocol() throws {
        let text = try response(
            "HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 0",
            with: .init(isUpgrade: true))
        #expect(
            text == Self.head(["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]))
    }

    @Test func upgradeRequiredSaysToWhat() throws {
        let text = try response(
            "HTTP/1.1 426 Upgrade Required", "Upgrade: TLS/1.2", "Connection: Upgrade", "Content-Length: 0")
        #expect(text == Self.head(["HTTP/1.1 426 Upgrade Required", "Upgrade: TLS/1.2", "Content-Length: 0"]))
    }

    @Test func traceFieldsOfABackendAreItsOwnMatter() throws {
        let lines = ["HTTP/1.1 200 OK", Self.caller, "X-Forwarded-For: x", "Content-Length: 0"]
        #expect(try response(lines[0], lines[1], lines[2], lines[3]) == Self.head(lines))
    }
}

extension String {
    /// How often `part` is in it.
    fileprivate func components(of part: String) -> Int {
        var count = 0
        var rest = self[...]
        while let first = rest.first {
            if rest.hasPrefix(part) { count += 1 }
            _ = first
            rest = rest.dropFirst()
        }
        return count
    }
}
