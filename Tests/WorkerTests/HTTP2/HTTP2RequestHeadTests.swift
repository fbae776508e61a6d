import ShmRing
import Testing

@testable import Worker

/// A request that goes to a backend over HTTP/2 without becoming text on its way.
@Suite struct HTTP2RequestHeadTests {
    private static let peer = PeerName(SocketAddress(ip: "192.0.2.7", port: 50123)!)

    /// A client's head, parsed.
    private struct Sent {
        let text: String
        let head: RequestHead
        let table: FieldTable

        init(_ text: String) throws {
            self.text = text
            table = FieldTable()
            guard case .complete(let head) = RequestParser().parse(text.utf8.span, into: table) else {
                throw Unreadable()
            }
            self.head = head
        }

        func isTaken(by stream: HTTP2Stream, _ additions: HeadWriter.RequestAdditions) -> Bool {
            stream.sendHead(text.utf8.span, head, table, peer: HTTP2RequestHeadTests.peer.ip, additions)
        }
    }

    private struct Unreadable: Error {}

    private static func additions(isTraced: Bool) -> HeadWriter.RequestAdditions {
        var additions = HeadWriter.RequestAdditions(fallbackHost: "fallback")
        additions.isSecure = isTraced
        guard isTraced else { return additions }
        var random = IDGenerator(seed: 1)
        additions.identity = TraceIdentity(context: nil, &random)
        additions.attemptSpanID = 0x1234_5678_9abc_def0
        return additions
    }

    @Test(
        arguments: [
            "GET /a?b=c HTTP/1.1\r\nHost: x.test\r\nUser-Agent: u\r\nAccept: */*\r\nCookie: a=1; b=2\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x.test:81\r\nContent-Length: 3\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nTE: trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\nx-forwarded-for:\r\nX-Forwarded-For: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nX-Forwarded-Host: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\nHTTP2-Settings: A\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\nX-SSL-Client-Verify: NONE\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: x\r\nExpect: a\r\nAUTHORIZATION: Basic x\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\ntraceparent: 00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01\r\n"
                + "tracestate: a=b\r\n\r\n",
        ], [false, true])
    func theBackendSeesTheSameAsThroughText(_ text: String, _ isTraced: Bool) throws {
        let sent = try Sent(text)
        let additions = Self.additions(isTraced: isTraced)
        let short = SessionPair()
        let straight = short.client.openStream()
        #expect(sent.isTaken(by: straight, additions))
        short.exchange()
        let long = SessionPair()
        let written = ByteBuffer(capacity: 4096)
        HeadWriter.writeRequest(text.utf8.span, sent.head, sent.table, peer: Self.peer.ip, additions, to: written)
        let byText = long.request(written.text)
        let seen = short.text(try #require(short.arrived.first))
        #expect(seen.contains("x-forwarded-for: "))
        #expect(seen == long.text(try #require(long.arrived.first)))
        #expect(straight.method == byText.method)
        #expect(short.arrived[0].hasInboundEnded == long.arrived[0].hasInboundEnded)
    }

    @Test(
        arguments: [
            "GET http://x.test/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ])
    func whatHeadWriterAloneKnowsComesAsText(_ text: String) throws {
        let sent = try Sent(text)
        let pair = SessionPair()
        let stream = pair.client.openStream()
        let additions = Self.additions(isTraced: false)
        #expect(!sent.isTaken(by: stream, additions))
        #expect(stream.id == 0)
    }

    @Test func whoTheClientIsComesAsText() throws {
        let text = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        let sent = try Sent(text)
        var additions = Self.additions(isTraced: false)
        additions.certificateLines = Array("X-SSL-Client-Verify: NONE\r\n".utf8)
        let pair = SessionPair()
        let stream = pair.client.openStream()
        #expect(!sent.isTaken(by: stream, additions))
        additions.certificateLines = []
        #expect(sent.isTaken(by: stream, additions))
        pair.exchange()
        #expect(pair.arrived.count == 1)
    }

    @Test func aBodyFollowsItsHead() throws {
        let text = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
        let sent = try Sent(text)
        let pair = SessionPair()
        let stream = pair.client.openStream()
        let additions = Self.additions(isTraced: false)
        #expect(sent.isTaken(by: stream, additions))
        #expect(!sent.isTaken(by: stream, additions), "only once")
        pair.send("hello", on: stream)
        #expect(pair.text(pair.arrived[0]).hasSuffix("\r\n\r\nhello"))
        #expect(pair.arrived[0].hasInboundEnded)
    }

    /// Longer than what a list of fields has room for at first.
    @Test func aLongChainOfProxiesGoesOn() throws {
        let chain = String(repeating: "192.0.2.1, ", count: 500) + "192.0.2.2"
        let text = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: \(chain)\r\n\r\n"
        let sent = try Sent(text)
        let pair = SessionPair()
        let stream = pair.client.openStream()
        let additions = Self.additions(isTraced: false)
        #expect(sent.isTaken(by: stream, additions))
        pair.exchange()
        #expect(pair.text(pair.arrived[0]).contains("\r\nx-forwarded-for: \(chain), 192.0.2.7\r\n"))
    }
}
