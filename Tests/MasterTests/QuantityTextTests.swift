import Testing

@testable import Master

@Suite struct QuantityTextTests {
    @Test(
        arguments: [
            ("10", 10_000_000_000), ("0.5", 500_000_000), ("0.001", 1_000_000), ("0.000000001", 1), ("0", 0),
            ("0.10", 100_000_000), ("31536000", SecondsText.nsMax),
        ] as [(String, UInt64)])
    func secondsAreRead(text: String, ns: UInt64) throws {
        #expect(try SecondsText.parse(text, in: SecondsText.delayNs) == ns)
    }

    @Test(arguments: [
        "", "soon", "-1", "+1", "nan", "inf", "1e3", "1e400", ".5", "5.", "1.2.3", "0x10", " 1", "1 ", "1,5",
        "0.0000000001", "31536000.1", "31536001", "99999999999999999999", "１",
    ])
    func otherSecondsAreRefused(text: String) {
        #expect(throws: BadValue.self) { try SecondsText.parse(text, in: SecondsText.delayNs) }
    }

    @Test func timeoutsMustLetSomethingHappen() {
        #expect(throws: BadValue.self) { try SecondsText.parse("0", in: SecondsText.timeoutNs) }
        #expect(throws: BadValue("use seconds from 0.001 to 31536000, such as 0.5")) {
            try SecondsText.parse("0.0001", in: SecondsText.timeoutNs)
        }
    }

    @Test(arguments: ["0", "10", "0.5", "0.001", "1.000000001", "2.25"])
    func secondsAreWrittenAsTheyWereRead(text: String) throws {
        #expect(SecondsText.format(try SecondsText.parse(text, in: SecondsText.delayNs)) == text)
    }

    @Test(arguments: [
        ("0", 0), ("100", 100), ("1k", 1024), ("32K", 32 * 1024), ("16m", 16 << 20), ("2g", 2 << 30),
    ])
    func bytesAreRead(text: String, bytes: Int) throws {
        #expect(try BytesText.parse(text, in: 0...4 << 30) == bytes)
    }

    @Test(arguments: [
        "", "k", "12q", "-5", "+5", "1.5k", "1 k", "1kk", "5g", "99999999999999999999g", "9007199254740993g", "12kb",
    ])
    func otherBytesAreRefused(text: String) {
        #expect(throws: BadValue.self) { try BytesText.parse(text, in: 0...4 << 30) }
    }

    @Test(arguments: [(100, "100"), (1024, "1k"), (1536, "1536"), (1 << 20, "1m"), (3 << 30, "3g"), (0, "0")])
    func bytesAreWrittenShort(bytes: Int, text: String) {
        #expect(BytesText.format(bytes) == text)
    }

    @Test func countsHaveARange() throws {
        #expect(try CountText.parse("65535", in: 0...65535) == 65535)
        for text in ["65536", "-1", "", "many", "+1", "1.0", "99999999999999999999999"] {
            #expect(throws: BadValue("use a whole number from 0 to 65535")) { try CountText.parse(text, in: 0...65535) }
        }
    }
}
