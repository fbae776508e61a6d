import Testing

@testable import Worker

/// A response that goes to an HTTP/2 client without becoming text on its way.
@Suite struct HTTP2ResponseHeadTests {
    private struct Answer {
        let pair = SessionPair()
        let client: HTTP2Stream
        let server: HTTP2Stream

        init(method: String) throws {
            client = pair.request("\(method) / HTTP/1.1\r\nHost: x\r\n\r\n")
            server = try #require(pair.arrived.first)
        }

        /// Gives the head to the server's stream.
        func takes(
            _ text: String, _ head: ResponseHead, _ table: FieldTable,
            _ additions: HeadWriter.ResponseAdditions = .init()
        ) -> Bool {
            server.sendHead(text.utf8.span, head, table, additions)
        }
    }

    private static func head(_ text: String, method: Method) throws -> (ResponseHead, FieldTable) {
        let table = FieldTable()
        guard case .complete(let head) = ResponseParser().parse(text.utf8.span, answering: method, into: table) else {
            throw Unreadable()
        }
        return (head, table)
    }

    private struct Unreadable: Error {}

    @Test(
        arguments: [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nServer: S\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nKeep-Alive: 1\r\nHTTP2-Settings: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n",
            "HTTP/1.1 404\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nUPPER-Case-Name: Value\r\n\r\n",
            "HTTP/1.0 426 Upgrade Required\r\nUpgrade: h2c\r\n\r\n",
        ], ["GET", "HEAD"])
    func theClientSeesTheSameAsThroughText(_ text: String, _ method: String) throws {
        let (head, table) = try Self.head(text, method: Method.named(method.utf8.span))
        var additions = HeadWriter.ResponseAdditions()
        additions.writesChunks = head.framing == .chunked || head.framing == .untilClose
        additions.closes = true
        let short = try Answer(method: method)
        #expect(short.takes(text, head, table, additions))
        short.pair.exchange()
        let long = try Answer(method: method)
        let written = ByteBuffer(capacity: 4096)
        HeadWriter.writeResponse(text.utf8.span, head, table, additions, to: written)
        long.pair.send(written.text, on: long.server)
        let seen = short.pair.text(short.client)
        #expect(seen.hasPrefix("HTTP/1.1 \(head.status) "))
        #expect(seen == long.pair.text(long.client))
        #expect(short.client.hasInboundEnded == long.client.hasInboundEnded)
        #expect(short.client.hasInboundEnded == (head.framing.rawBytesMax == 0))
    }

    @Test func interimHeadsAndSecondOnesComeAsText() throws {
        let answer = try Answer(method: "GET")
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        let (head, table) = try Self.head(hints, method: .get)
        #expect(!answer.takes(hints, head, table))
        let final = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        let (finalHead, finalTable) = try Self.head(final, method: .get)
        #expect(answer.takes(final, finalHead, finalTable))
        #expect(!answer.takes(final, finalHead, finalTable))
        answer.pair.send("ok", on: answer.server)
        #expect(answer.pair.text(answer.client).hasSuffix("\r\n\r\nok"))
    }

    /// DATA is written straight into the output, which has room for one frame now and then for more.
    @Test(arguments: [17_000, 20_000, 35_000, 65_536])
    func framesStopWhereTheOutputIsFull(_ capacity: Int) throws {
        let answer = try Answer(method: "GET")
        let body = String(repeating: "0123456789abcdef", count: 3000)
        let text = ByteBuffer(capacity: 65_536)
        text.append(string: "HTTP/1.1 200 OK\r\nContent-Length: 48000\r\n\r\n" + body)
        #expect(answer.server.send(from: text, countMax: text.readableBytes) != .wouldBlock)
        let output = ByteBuffer(capacity: capacity)
        var isDry = false
        while !isDry {
            isDry = answer.pair.server.write(to: output)
            #expect(output.readableBytes > 0 || isDry)
            answer.pair.client.receive(output.readable)
            output.reset()
        }
        #expect(answer.pair.text(answer.client).hasSuffix("\r\n\r\n" + body))
        #expect(answer.client.hasInboundEnded)
    }
}
