import Testing

@testable import Worker

@Suite struct RequestBlockTests {
    /// Whatever stands where: names are looked at eight bytes at a time.
    @Test func namesAreTokensInLowerCase() {
        for count in 1...18 {
            for byte in UInt8.min...UInt8.max {
                for place in Set([0, count / 2, count - 1]) {
                    var name = [UInt8](repeating: UInt8(ascii: "x"), count: count)
                    name[place] = byte
                    let isRight = isTokenByte(byte) && lowercased(byte) == byte
                    if RequestBlock.isLowerCaseToken(name.span) != isRight {
                        Issue.record("byte \(byte) at \(place) of \(count)")
                    }
                }
            }
        }
    }

    typealias Field = (name: String, value: String)

    static let get: [Field] = [
        (":method", "GET"), (":scheme", "http"), (":path", "/a?b"), (":authority", "example.org"),
    ]

    /// The block after all fields, judged.
    static func block(_ fields: [Field], bytesMax: Int = 1024) -> RequestBlock {
        let block = RequestBlock(BufferPool(), bytesMax: bytesMax)
        for field in fields { block.field(field.name.utf8.span, field.value.utf8.span) }
        block.judge()
        return block
    }

    /// The head that the fields become.
    static func head(_ fields: [Field], hasBody: Bool = false, bytesMax: Int = 1024) -> String {
        let block = block(fields, bytesMax: bytesMax)
        let output = ByteBuffer(capacity: 4096)
        block.writeHead(hasBody: hasBody, webSocketKey: "0123456789012345678901==".utf8.span, to: output)
        return text(output.readable)
    }

    private static func text(_ bytes: Span<UInt8>) -> String {
        String(decoding: bytes.indices.map { bytes[$0] }, as: UTF8.self)
    }

    @Test func requestBecomesAnHTTP1Head() {
        #expect(
            Self.head(Self.get + [("accept", "*/*")])
                == "GET /a?b HTTP/1.1\r\nhost: example.org\r\naccept: */*\r\n\r\n")
    }

    @Test func unknownLengthBecomesChunked() {
        #expect(Self.head(Self.get, hasBody: true).hasSuffix("transfer-encoding: chunked\r\n\r\n"))
    }

    @Test func knownLengthIsKept() {
        let head = Self.head(Self.get + [("content-length", "12")], hasBody: true)
        #expect(head.hasSuffix("content-length: 12\r\n\r\n"))
        #expect(!head.contains("transfer-encoding"))
    }

    @Test func cookieCrumbsAreJoined() {
        let head = Self.head(Self.get + [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")])
        #expect(head.contains("cookie: a=1; b=2; c=3\r\n"))
        #expect(head.contains("x: y\r\n"))
    }

    @Test func hostServesWhereThereIsNoAuthority() {
        let fields = Self.get.filter { $0.name != ":authority" } + [("host", "other.example")]
        #expect(Self.head(fields).contains("host: other.example\r\n"))
    }

    @Test(arguments: ["example.org", "EXAMPLE.org"])
    func hostMayRepeatTheAuthority(_ host: String) {
        #expect(Self.block(Self.get + [("host", host)]).refusal == nil)
        let head = Self.head(Self.get + [("host", host)])
        #expect(head.replacing("host:", with: "").count == head.count - 5)
    }

    @Test func teTrailersIsKept() {
        #expect(Self.head(Self.get + [("te", "trailers")]).contains("te: trailers\r\n"))
    }

    @Test(arguments: [
        [("host", "evil.example")], [("host", "example.org"), ("host", "example.org")], [("te", "gzip")],
        [("connection", "close")], [("keep-alive", "1")], [("proxy-connection", "x")], [("upgrade", "h2c")],
        [("transfer-encoding", "chunked")], [("X-Upper", "1")], [("", "1")], [("a b", "1")], [("a:b", "1")],
        [("a", "b\r\nc: d")], [("a", "b\nc")], [("a", "b\u{0}c")], [("content-length", "1"), ("content-length", "1")],
        [("content-length", "+1")], [("content-length", "")], [(":path", "/other")], [(":unknown", "1")],
        [(":protocol", "websocket")],
    ])
    func isRefused(_ extra: [Field]) {
        #expect(Self.block(Self.get + extra).refusal == .malformed)
    }

    @Test(arguments: [":method", ":scheme", ":path"])
    func missingPseudoFieldIsRefused(_ name: String) {
        #expect(Self.block(Self.get.filter { $0.name != name }).refusal == .malformed)
    }

    @Test(arguments: ["", "a", "http://example.org/", "a\r\nb", "/a\r\nb"])
    func pathThatIsNoneIsRefused(_ path: String) {
        let fields = Self.get.map { $0.name == ":path" ? (name: ":path", value: path) : $0 }
        #expect(Self.block(fields).refusal == .malformed)
    }

    @Test func blockOverItsLimitKeepsItsFirstLine() {
        let fields = Self.get + [("a", String(repeating: "x", count: 2000)), ("b", "1")]
        #expect(Self.block(fields).refusal == .tooLarge)
        #expect(Self.head(fields) == "GET /a?b HTTP/1.1\r\nhost: example.org\r\n\r\n")
    }

    @Test func blockOverItsLimitWithoutAFirstLineIsMalformed() {
        #expect(Self.block([("a", String(repeating: "x", count: 2000))]).refusal == .malformed)
    }

    @Test func extendedConnectBecomesAnUpgrade() {
        let fields: [Field] = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"),
            (":authority", "example.org"), ("sec-websocket-version", "13"),
        ]
        #expect(
            Self.head(fields, hasBody: true)
                == "GET /chat HTTP/1.1\r\nhost: example.org\r\nsec-websocket-version: 13\r\n"
                + "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: 0123456789012345678901==\r\n\r\n")
        #expect(Self.block(fields).isExtendedConnect)
    }

    @Test func plainConnectKeepsItsMethodForTheParserToRefuse() {
        let head = Self.head([(":method", "CONNECT"), (":authority", "example.org:443")])
        #expect(head.hasPrefix("CONNECT example.org:443 "))
    }
}
