import Testing

@testable import Worker

@Suite struct FieldSectionTests {
    @Test func linesAreReadInOrder() {
        let section = SectionReading("Host: h\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nrest")
        #expect(section.outcome == .complete(end: 45))
        #expect(section.fields.map(\.name) == ["Host", "set-cookie", "Set-Cookie"])
        #expect(section.fields.map(\.value) == ["h", "a=1", "b=2"])
        #expect(section.fields.map(\.known) == [.host, .other, .other])
    }

    @Test(arguments: [("X:v", "v"), ("X: \t v \t ", "v"), ("X:", ""), ("X:  \t ", ""), ("X: a b\tc", "a b\tc")])
    func whiteSpaceAroundAValueIsNoPartOfIt(line: String, value: String) {
        #expect(SectionReading("\(line)\r\n\r\n").fields.map(\.value) == [value])
    }

    @Test func bytesAboveASCIIMayStandInValues() {
        #expect(SectionReading("X: é\r\n\r\n").fields.map(\.value) == ["é"])
    }

    @Test(arguments: [
        "X: a\n\r\n", "X: a\n\n\r\n", "X: a\r\n\n", "X: a\r\n\rX", "X: a\r\r\n\r\n", "X: a\rb\r\n\r\n",
        "X: a\nY: b\r\n\r\n",
        "X : a\r\n\r\n", "X\t: a\r\n\r\n", " X: a\r\n\r\n", "X: a\r\n b\r\n\r\n", "X: a\r\n\tb\r\n\r\n",
        ": a\r\n\r\n",
        "X\r\n\r\n", "X a: b\r\n\r\n", "X: \0\r\n\r\n", "X: \u{7F}\r\n\r\n", "X: \u{0B}a\r\n\r\n", "é: a\r\n\r\n",
        "X\0: a\r\n\r\n", "(X): a\r\n\r\n", "X: a\r\n\r\r",
    ])
    func whatCanBeReadTwoWaysIsMalformed(section: String) {
        #expect(SectionReading(section).outcome == .malformed)
    }

    @Test func fieldsUpToTheLimitPass() {
        let line = "X: a\r\n"
        let three = String(repeating: line, count: 3)
        #expect(SectionReading(three + "\r\n", fieldsMax: 3).outcome == .complete(end: 20))
        #expect(SectionReading(three + line + "\r\n", fieldsMax: 3).outcome == .tooManyFields)
    }

    @Test func everyKnownNameIsFoundInAnyCase() {
        let names: [(String, KnownField)] = [
            ("TE", .te), ("Host", .host), ("Expect", .expect), ("Upgrade", .upgrade), ("Trailer", .trailer),
            ("Connection", .connection), ("Keep-Alive", .keepAlive), ("User-Agent", .userAgent),
            ("tracestate", .tracestate), ("traceparent", .traceparent), ("Content-Length", .contentLength),
            ("HTTP2-Settings", .http2Settings), ("X-Forwarded-For", .forwardedFor),
            ("X-Forwarded-Host", .forwardedHost), ("Proxy-Connection", .proxyConnection),
            ("Transfer-Encoding", .transferEncoding), ("X-Forwarded-Proto", .forwardedProto),
        ]
        for (name, field) in names {
            for spelling in [name, name.lowercased(), name.uppercased()] {
                #expect(SectionReading("\(spelling): x\r\n\r\n").fields.map(\.known) == [field], "\(spelling)")
            }
            #expect(SectionReading("\(name)x: x\r\n\r\n").fields.map(\.known) == [.other])
        }
    }

    @Test(arguments: [
        ("a, b,c", ["a", "b", "c"]), ("", []), (" , ,", []), ("a", ["a"]), (",a ,, \tb\t,", ["a", "b"]),
        ("a b", ["a b"]),
    ])
    func emptyListMembersAreLeftOut(value: String, expected: [String]) {
        let bytes = Array("X\(value)X".utf8)
        var members = ListMembers(1..<(bytes.count - 1))
        var found: [String] = []
        while let member = members.next(in: bytes.span) { found.append(String(decoding: bytes[member], as: UTF8.self)) }
        #expect(found == expected)
    }
}
