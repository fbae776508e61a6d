import Testing

@testable import Worker

@Suite struct FramingFieldsTests {
    private func verdict(_ lines: String...) -> FramingFields.Verdict {
        SectionReading(lines.map { $0 + "\r\n" }.joined() + "\r\n").framing
    }

    @Test func noFramingFieldSaysNothing() {
        #expect(verdict("Host: h") == .none)
        #expect(verdict() == .none)
    }

    @Test(arguments: [("0", 0), ("5", 5), ("0005", 5), ("999999999999999999", 999_999_999_999_999_999)])
    func plainDigitsAreALength(value: String, length: Int) {
        #expect(verdict("Content-Length: \(value)") == .length(length))
    }

    @Test(arguments: [
        "", "-1", "+1", "0x5", "5.0", "1_0", "1 0", "5,5", "5, 5", "5;", "٥", "1000000000000000000",
        "9223372036854775808", "18446744073709551621",
    ])
    func anythingElseIsNoLength(value: String) {
        #expect(verdict("Content-Length: \(value)") == .ambiguous)
    }

    @Test func twoLengthsAreAmbiguousEvenWhenEqual() {
        #expect(verdict("Content-Length: 5", "Content-Length: 5") == .ambiguous)
        #expect(verdict("Content-Length: 5", "content-length: 6") == .ambiguous)
    }

    @Test func lengthWithTransferCodingIsAmbiguousInEitherOrder() {
        #expect(verdict("Content-Length: 5", "Transfer-Encoding: chunked") == .ambiguous)
        #expect(verdict("Transfer-Encoding: chunked", "Content-Length: 0") == .ambiguous)
        #expect(verdict("Transfer-Encoding: gzip", "Content-Length: 5") == .ambiguous)
    }

    @Test(arguments: ["chunked", "Chunked", "CHUNKED", "\tchunked "])
    func chunkedAloneIsChunked(value: String) {
        #expect(verdict("Transfer-Encoding: \(value)") == .chunked)
    }

    @Test(arguments: [
        "", ",", "chunked, chunked", "chunked, gzip", "chunked;q=1", "\"chunked\"", "gzip;x, chunked",
        "gzip chunked",
    ])
    func codingsThatCanBeReadTwoWaysAreAmbiguous(value: String) {
        #expect(verdict("Transfer-Encoding: \(value)") == .ambiguous)
    }

    @Test(arguments: ["gzip", "xchunked", "identity", "gzip, chunked", "chunkedd", "gzip,deflate"])
    func codingsWeLackAreUnknown(value: String) {
        #expect(verdict("Transfer-Encoding: \(value)") == .unknownCoding)
    }

    @Test func twoTransferCodingFieldsAreAmbiguous() {
        #expect(verdict("Transfer-Encoding: gzip", "Transfer-Encoding: chunked") == .ambiguous)
        #expect(verdict("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") == .ambiguous)
    }

    @Test func connectionOptionsAreReadFromEveryField() {
        let section = SectionReading("Connection: Close\r\nconnection: x, KEEP-ALIVE ,upgrade\r\n\r\n")
        #expect(section.connection == .init(isClose: true, isKeepAlive: true, isUpgrade: true))
        #expect(SectionReading("Connection: closed, keep-alive2\r\n\r\n").connection == .init())
    }

    @Test func fieldsThatConnectionNamesAreMarkedWhereverTheyStand() {
        let section = SectionReading("X-A: 1\r\nConnection: x-a, X-B\r\nX-b: 2\r\nX-A: 3\r\nX-AB: 4\r\n\r\n")
        #expect(section.fields.filter(\.isNamedByConnection).map(\.value) == ["1", "2", "3"])
    }

    /// Otherwise a client could make us drop the field that frames the message for the backend.
    @Test func connectionCannotTakeHostOrLengthAway() {
        let section = SectionReading("Host: h\r\nContent-Length: 5\r\nConnection: host, content-length\r\n\r\n")
        #expect(section.fields.allSatisfy { !$0.isNamedByConnection })
    }

    @Test func endlessConnectionOptionsAreRefused() {
        let most = String(repeating: "x,", count: FramingFields.namingOptionsMax)
        #expect(SectionReading("Connection: \(most) close\r\n\r\n").connection == .init(isClose: true))
        #expect(SectionReading("Connection: \(most)\r\nConnection: y\r\n\r\n").connection == nil)
    }
}
