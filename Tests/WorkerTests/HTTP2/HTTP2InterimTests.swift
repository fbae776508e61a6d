import Testing

@testable import Worker

/// Interim heads that come faster than anybody looks.
@Suite struct HTTP2InterimTests {
    private static let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    private func answered(_ interimCount: Int) throws -> (pair: SessionPair, stream: HTTP2Stream) {
        let pair = SessionPair()
        let stream = pair.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        let server = try #require(pair.arrived.first)
        let text = String(repeating: Self.hint, count: interimCount) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        pair.send(text, on: server)
        return (pair, stream)
    }

    @Test func asManyAsARequestMayHaveAreKept() throws {
        let (pair, stream) = try answered(ResponseParser.interimMax)
        #expect(pair.text(stream).occurrences(of: "HTTP/1.1 103") == ResponseParser.interimMax)
        #expect(stream.hasFinalHead)
        #expect(!stream.wasReset)
    }

    @Test(arguments: [ResponseParser.interimMax + 1, 2500])
    func oneMoreResetsTheStream(count: Int) throws {
        let (pair, stream) = try answered(count)
        #expect(pair.closed.contains { $0 === stream })
        #expect(stream.errorCode == HTTP2ErrorCode.enhanceYourCalm.rawValue)
        #expect(stream.failure == .upstreamProtocolError)
        #expect(pair.text(stream).occurrences(of: "HTTP/1.1 103") == ResponseParser.interimMax)
        #expect(!pair.client.isDead)
    }
}

extension String {
    /// How often a text is in it.
    fileprivate func occurrences(of text: String) -> Int { ranges(of: text).count }
}
