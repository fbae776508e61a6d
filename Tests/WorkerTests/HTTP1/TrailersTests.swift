import Testing

@testable import Worker

@Suite struct TrailersTests {
    private func forwardable(_ section: String) -> String {
        String(decoding: Trailers.forwardable(Array(section.utf8)), as: UTF8.self)
    }

    @Test func linesGoOnAsTheyCameWithoutTheEmptyLine() {
        #expect(forwardable("X-A:  1 \r\nx-b: 2\r\n\r\n") == "X-A:  1 \r\nx-b: 2\r\n")
        #expect(forwardable("") == "")
        #expect(forwardable("\r\n") == "")
    }

    /// RFC 9110 §6.5.1: framing, routing and what belongs to one connection are no matter for trailers.
    @Test(arguments: [
        "Content-Length: 5", "transfer-encoding: chunked", "Host: other", "Connection: x", "TE: trailers",
        "Upgrade: x",
        "Trailer: x", "Keep-Alive: 1", "Expect: 100-continue", "X-Forwarded-For: 1.2.3.4",
    ])
    func whatFramesOrRoutesStaysBehind(line: String) {
        #expect(forwardable("A: 1\r\n\(line)\r\nB: 2\r\n\r\n") == "A: 1\r\nB: 2\r\n")
    }

    @Test(arguments: [
        ("\r\n", true), ("A: 1\r\n\r\n", true), ("", false), ("A: 1\r\n", false), ("A: 1\r\n\r\nB", false),
        ("A\r\n\r\n", false),
        ("A : 1\r\n\r\n", false), ("A: 1\r\n b\r\n\r\n", false), ("A: 1\n\r\n", false), ("A: \0\r\n\r\n", false),
    ])
    func aSectionThatCanBeReadTwoWaysIsNotWellFormed(section: String, isWellFormed: Bool) {
        #expect(Trailers.isWellFormed(Array(section.utf8)) == isWellFormed)
    }

    @Test func aSectionHasALimitOfFields() {
        #expect(Trailers.isWellFormed(Array((String(repeating: "A: b\r\n", count: 64) + "\r\n").utf8)))
        #expect(!Trailers.isWellFormed(Array((String(repeating: "A: b\r\n", count: 65) + "\r\n").utf8)))
    }
}
