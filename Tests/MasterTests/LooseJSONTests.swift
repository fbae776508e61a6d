import Testing

@testable import Master

@Suite struct LooseJSONTests {
    private func value(_ text: String) throws -> JSONNode.Value { try LooseJSONParser.parse(text).value }

    private func error(_ text: String) -> JSONSyntaxError? {
        #expect(throws: JSONSyntaxError.self) { try LooseJSONParser.parse(text) }
    }

    @Test func plainJSONIsUnderstood() throws {
        let root = try LooseJSONParser.parse(#"{"a": [1, -2.50e+3, true, false, null], "b": {"c": "d"}}"#)
        guard case .object(let members) = root.value, case .array(let list) = members[0].node.value else {
            Issue.record("\(root)"); return
        }
        #expect(members.map(\.key) == ["a", "b"])
        #expect(list.map(\.value) == [.number("1"), .number("-2.50e+3"), .bool(true), .bool(false), .null])
        #expect(members[1].offset == 40)
    }

    @Test(
        arguments: [
            "// first\n[1, 2]", "[1, /* * / ** **/ 2]", "[1, 2,]", "[1, 2 , // last\n]", "\u{FEFF}[1,2]",
            "[1,2]//", "[1,2]/**/",
        ])
    func commentsAndTrailingCommasAreAllowed(text: String) throws {
        guard case .array(let list) = try value(text) else { Issue.record("no list"); return }
        #expect(list.map(\.value) == [.number("1"), .number("2")])
    }

    @Test func keysNeedNoQuotes() throws {
        guard case .object(let members) = try value("{a_1: 'x', \"b c\": '\"', $d: 1,}") else {
            Issue.record("none"); return
        }
        #expect(members.map(\.key) == ["a_1", "b c", "$d"])
        #expect(members.map(\.node.value) == [.string("x"), .string("\""), .number("1")])
    }

    @Test(
        arguments: [
            (#""\" \\ \/ \b \f \n \r \t""#, "\" \\ / \u{8} \u{c} \n \r \t"), (#""\u00e4\uD83D\uDE00""#, "ä😀"),
            ("\"ä😀\"", "ä😀"), ("''", ""),
        ])
    func textsAreUnescaped(text: String, meaning: String) throws {
        #expect(try value(text) == .string(meaning))
    }

    @Test(
        arguments: [
            ("", 0, "the file ends"), ("{", 1, "the file ends"), ("[1", 2, "the file ends"), ("[1 2]", 3, "2 stands"),
            ("{\"a\" 1}", 5, "a colon"), ("{\"a\":}", 5, "} stands"), ("[,]", 1, ", stands"), ("[1,,2]", 3, ", stands"),
            ("nope", 0, "nope stands"), ("[] x", 3, "the end of the file"), ("01", 1, "1 stands"), ("-", 1, "a digit"),
            ("1.", 2, "a digit"), ("1e", 2, "a digit"), ("\"abc", 0, "has no end"), ("\"a\nb\"", 2, "line break"),
            ("\"a\\", 0, "has no end"), ("\"\\x\"", 1, "no escape"), ("\"\\u12\"", 3, "hexadecimal"),
            ("\"\\u0000\"", 1, "no character"), ("\"\\uD800\"", 1, "no character"), ("\"\\uDC00\"", 1, "no character"),
            ("/* x", 0, "has no end"), ("/*/", 0, "has no end"), ("/", 0, "/ stands"), ("+1", 0, "+1 stands"),
            ("0x10", 1, "x10 stands"), ("Infinity", 0, "Infinity"), ("{1:2}", 1, "1 stands"), ("{]", 1, "] stands"),
        ])
    func errorsPointAtThePlace(text: String, offset: Int, words: String) {
        let error = error(text)
        #expect(error?.message.contains(words) == true, "\(String(describing: error))")
        #expect(error?.offset == offset)
    }

    @Test(arguments: ["[", "{a:", "[[{b:"])
    func deepNestingIsHarmless(opening: String) {
        #expect(error(String(repeating: opening, count: 100_000))?.message.contains("nested") == true)
    }

    @Test func everyBeginningOfATextIsAnErrorAndNoCrash() {
        let text = Array(#"/*c*/{"a":[1.5e-3,"\u00e4\n",true,null],b:'x',}//"#.utf8)
        for count in 0..<text.count {
            _ = try? LooseJSONParser.parse(String(decoding: text.prefix(count), as: UTF8.self))
            for byte: UInt8 in [0x22, 0x5C, 0x7B, 0x5D, 0x2F, 0x2A, 0x00, 0xFF] {
                var changed = text
                changed[count] = byte
                _ = try? LooseJSONParser.parse(String(decoding: changed, as: UTF8.self))
            }
        }
    }
}
