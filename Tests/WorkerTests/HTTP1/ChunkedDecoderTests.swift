import Testing

@testable import Worker

@Suite struct ChunkedDecoderTests {
    @Test(arguments: [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"), ("0\r\n\r\n", ""), ("000\r\n\r\n", ""),
        ("1\r\na\r\n02\r\nbc\r\n0\r\n\r\n", "abc"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a;x=\"y z\"\r\n0123456789\r\n0;last\r\n\r\n", "0123456789"),
        ("000000000000005\r\nhello\r\n0\r\n\r\n", "hello"), ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
    ])
    func chunksAreJoined(body: String, data: String) {
        let reading = ChunkedReading(body + "GET / HTTP/1.1")
        #expect(reading.end == .finished)
        #expect(reading.dataText == data)
        #expect(reading.trailers.isEmpty)
        #expect(reading.bytesUsed == body.utf8.count)
    }

    @Test func trailersAreKeptWithTheirEmptyLine() {
        let reading = ChunkedReading("1\r\na\r\n0\r\nX: 1\r\nY: 2\r\n\r\nrest")
        #expect(reading.end == .finished)
        #expect(reading.trailerText == "X: 1\r\nY: 2\r\n\r\n")
        #expect(reading.bytesUsed == 23)
    }

    @Test(arguments: [
        "xyz\r\n", "-5\r\n", "0x5\r\n", "+5\r\n", "\r\n", " 5\r\n", "5 \r\n", "5\t;x\r\n", ";x\r\n", "5\n", "5\rh",
        "5\r\r",
        "0000000000000005\r\n", "ffffffffffffffff\r\n", "4\r\nhello\r\n", "5\r\nhello\n", "5\r\nhello0\r\n",
        "5\r\nhello\r0", "5\r\nhello\r\n\r\n", "5;a\nb", "5;a\rb", "5;a\0b", "5;\u{7F}", "0\n", "0\r\n\n",
        "0\r\n\r\r",
        "0\r\n\rX", "0\r\nX: a\n", "0\r\nX: a\rb", "0\r\nX: a\r\n\rX", "0\r\nX: a\r\n\n", "0\r\nX: a\r\r\n",
        "0\r\nX\r\n\r\n", "0\r\nX : a\r\n\r\n", "0\r\nX: a\r\n b\r\n\r\n", "0\r\n: a\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
    ])
    func whatCanBeReadTwoWaysIsMalformed(body: String) {
        #expect(ChunkedReading(body).end == .malformed)
    }

    /// The events of one decoder that is asked again and again, with the index behind each.
    private func events(_ text: String, asking times: Int) -> [(ChunkedDecoder.Event, Int)] {
        var decoder = ChunkedDecoder()
        let bytes = Array(text.utf8)
        var index = 0
        return (0..<times).map { _ in (decoder.next(bytes.span, &index), index) }
    }

    @Test func aMalformedBodyStaysMalformed() {
        let found = events("x0\r\n\r\n", asking: 3)
        #expect(found.map(\.0) == [.malformed, .malformed, .malformed])
    }

    @Test func nothingBehindTheEndIsUsed() {
        let found = events("0\r\n\r\n0\r\n\r\n", asking: 2)
        #expect(found.map(\.0) == [.finished, .finished])
        #expect(found.map(\.1) == [5, 5])
    }

    @Test func theLargestSizeIsTaken() {
        #expect(events("fffffffffffffff\r\nx", asking: 2).map(\.0) == [.data(17..<18), .needsMore])
    }

    @Test func isFinishedFollowsTheLastByte() {
        var decoder = ChunkedDecoder()
        for byte in "1\r\na\r\n0\r\n\r\n".utf8 {
            #expect(!decoder.isFinished)
            var index = 0
            _ = decoder.next([byte].span, &index)
        }
        #expect(decoder.isFinished)
    }

    @Test func extensionsUpToTheLimitPass() {
        let most = String(repeating: "x", count: ChunkedDecoder.extensionBytesMax)
        #expect(ChunkedReading("0;\(most)\r\n\r\n").end == .finished)
        #expect(ChunkedReading("0;\(most)x\r\n\r\n").end == .malformed)
    }

    @Test func trailersUpToTheLimitPass() {
        let most = "X: " + String(repeating: "x", count: ChunkedDecoder.trailerBytesMax - 7)
        #expect(ChunkedReading("0\r\n\(most)\r\n\r\n").end == .finished)
        #expect(ChunkedReading("0\r\n\(most)x\r\n\r\n").end == .malformed)
    }
}
