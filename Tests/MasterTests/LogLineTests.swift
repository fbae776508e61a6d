import Glibc
import Logging
import Testing

@testable import Master

@Suite struct LogLineTests {
    private func line(_ value: String, as format: LogFormat = .logfmt, key: String = "k") -> String {
        var line = LogLine()
        line.add(key, value)
        line.add("end", "1")
        return line.text(as: format)
    }

    @Test(arguments: [
        ("plain", "k=plain end=1\n"), ("", "k=\"\" end=1\n"), ("two words", "k=\"two words\" end=1\n"),
        ("a=b", "k=\"a=b\" end=1\n"), ("say \"hi\"", "k=\"say \\\"hi\\\"\" end=1\n"),
        ("C:\\x", "k=\"C:\\\\x\" end=1\n"), ("Köln", "k=Köln end=1\n"),
    ])
    func logfmtQuotesWhatNeedsIt(value: String, expected: String) {
        #expect(line(value) == expected)
    }

    @Test(arguments: [LogFormat.logfmt, .json])
    func noValueCanForgeALine(format: LogFormat) {
        // Ends of lines, terminal controls, separators that some viewers break lines at, changes of direction.
        let dangerous: [Unicode.Scalar] = [
            "\n", "\r", "\u{0}", "\u{B}", "\u{C}", "\u{1B}", "\u{7F}", "\u{85}", "\u{9B}", "\u{2028}", "\u{2029}",
            "\u{200E}", "\u{200F}", "\u{61C}", "\u{202A}", "\u{202E}", "\u{2066}", "\u{2069}",
        ]
        for scalar in dangerous {
            let text = line("x\(scalar)level=error msg=forged", as: format)
            #expect(!text.unicodeScalars.dropLast().contains(scalar), "\(text.debugDescription)")
            #expect(text.hasSuffix("\n"))
        }
    }

    @Test func logfmtValuesCannotGrowFurtherPairs() {
        #expect(line("x level=error") == "k=\"x level=error\" end=1\n")
        #expect(line("x\" level=\"error") == "k=\"x\\\" level=\\\"error\" end=1\n")
    }

    @Test func jsonIsEscaped() {
        #expect(line("a\"b\\c\nd\u{1}", as: .json) == "{\"k\":\"a\\\"b\\\\c\\nd\\u0001\",\"end\":\"1\"}\n")
    }

    @Test func keysAreReducedToPlainOnes() {
        #expect(line("v", key: "a b=\n\"é") == "a_b____=v end=1\n")
        #expect(line("v", key: "") == "_=v end=1\n")
    }

    @Test func longValuesAreCut() {
        let text = line(String(repeating: "ä", count: 5000))
        #expect(text == "k=" + String(repeating: "ä", count: LogLine.valueScalarsMax) + "… end=1\n")
    }

    @Test func aLineHasTimeLevelRoleAndMessageBeforeItsMetadata() {
        var handler = LineLogHandler(
            settings: LogSettings(level: .info, format: .logfmt), role: "worker-3", sink: LogLineSink(STDERR_FILENO))
        handler[metadataKey: "z"] = "1"
        let event = LogEvent(
            level: .warning, message: "gone\nforged", metadata: ["b": "x", "z": "2"], source: nil, file: "",
            function: "",
            line: 0)
        let text = handler.line(event, nowUnixNs: 1_700_000_000_123_456_789).text(as: .logfmt)
        #expect(
            text
                == "time=2023-11-14T22:13:20.123Z level=warning role=worker-3 msg=\"gone\\nforged\" b=x z=2\n")
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (951_827_696_000, "2000-02-29T12:34:56.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"), (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_767_225_599_001, "2025-12-31T23:59:59.001Z"), (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (13574563200000, "2400-02-29T00:00:00.000Z"),
        ] as [(UInt64, String)])
    func timesAreUTC(unixMs: UInt64, text: String) {
        #expect(UTCTime.text(unixNs: unixMs * 1_000_000) == text)
    }
}
