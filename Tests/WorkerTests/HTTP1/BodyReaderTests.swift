import Testing

@testable import Worker

@Suite struct BodyReaderTests {
    /// All data of `text`, fed in pieces of `pieceBytes`, and the event that ended it.
    private func read(
        _ text: String, _ reader: inout BodyReader, pieceBytes: Int = .max
    ) -> (data: String, end: BodyReader.Event, bytesUsed: Int) {
        let bytes = Array(text.utf8)
        var data: [UInt8] = []
        var used = 0
        var end = BodyReader.Event.needsMore
        while used < bytes.count || bytes.isEmpty {
            let piece = Array(bytes[used..<min(bytes.count, used + min(pieceBytes, bytes.count))])
            var index = 0
            repeat {
                end = reader.next(piece.span, &index)
                if case .data(let range) = end { data += piece[range] }
            } while end != .needsMore && end != .finished && end != .malformed
            used += index
            if end != .needsMore || bytes.isEmpty { break }
        }
        return (String(decoding: data, as: UTF8.self), end, used)
    }

    @Test func withoutABodyNothingIsTaken() {
        var reader = BodyReader(.none)
        #expect(reader.isFinished)
        let result = read("GET /next", &reader)
        #expect(result == ("", .finished, 0))
    }

    @Test(arguments: [1, 2, 5, .max])
    func aLengthIsTakenAndNotAByteMore(pieceBytes: Int) {
        var reader = BodyReader(.length(5))
        #expect(!reader.isFinished)
        let result = read("helloGET /next", &reader, pieceBytes: pieceBytes)
        #expect(result.data == "hello")
        #expect(result.bytesUsed == 5)
        #expect(reader.isFinished)
    }

    @Test func aLengthThatIsNotThereYetNeedsMore() {
        var reader = BodyReader(.length(5))
        #expect(read("hel", &reader) == ("hel", .needsMore, 3))
        #expect(reader.rawBytesMax == 2)
        #expect(!reader.isFinished)
    }

    @Test(arguments: [1, 3, 7, .max])
    func chunksAreTakenApart(pieceBytes: Int) {
        var reader = BodyReader(.chunked)
        let body = "5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
        let result = read(body + "GET /next", &reader, pieceBytes: pieceBytes)
        #expect(result == ("hello world", .finished, body.utf8.count))
        #expect(reader.isFinished)
        #expect(String(decoding: reader.trailers, as: UTF8.self) == "X-Sum: 1\r\n\r\n")
    }

    @Test func brokenChunksAreMalformed() {
        var reader = BodyReader(.chunked)
        #expect(read("5\r\nhelloX", &reader).end == .malformed)
        #expect(!reader.isFinished)
    }

    @Test func untilCloseTakesEverythingAndNeverEnds() {
        var reader = BodyReader(.untilClose)
        #expect(read("anything", &reader) == ("anything", .needsMore, 8))
        #expect(!reader.isFinished)
        #expect(reader.rawBytesMax == .max)
    }

    @Test func onlyAChunkedBodyMustBeReadThrough() {
        #expect(BodyReader(.none).rawBytesMax == 0)
        #expect(BodyReader(.length(7)).rawBytesMax == 7)
        #expect(BodyReader(.chunked).rawBytesMax == nil)
    }

    @Test func bytesThatPassUnreadCount() {
        var reader = BodyReader(.length(7))
        reader.rawBytesPassed(3)
        #expect(reader.rawBytesMax == 4)
        reader.rawBytesPassed(4)
        #expect(reader.isFinished)
    }
}
