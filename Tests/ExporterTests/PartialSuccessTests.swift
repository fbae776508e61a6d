import Testing

@testable import Exporter

@Suite struct PartialSuccessTests {
    private func parse(_ text: String) -> PartialSuccess { PartialSuccess(body: Array(text.utf8)) }

    @Test func emptyAnswersAreSuccess() {
        #expect(PartialSuccess(body: []) == .complete)
        #expect(parse("{}") == .complete)
        #expect(parse("{\"partialSuccess\":{}}") == .complete)
        #expect(parse("{\"partialSuccess\":null}") == .complete)
        #expect(PartialSuccess(body: [0x0A, 0x00]) == .complete)
    }

    @Test func rejectedSpansAreReadFromProtobuf() {
        let message = Array("too old".utf8)
        let body = [0x0A, UInt8(message.count + 5), 0x08, 0xAC, 0x02, 0x12, UInt8(message.count)] + message
        #expect(PartialSuccess(body: body) == .partial(rejectedSpans: 300, message: "too old"))
    }

    @Test func rejectedSpansAreReadFromJSON() {
        #expect(
            parse(" {\"partialSuccess\": {\"rejectedSpans\": \"3\", \"errorMessage\": \"no \\\"room\\\"\"}}")
                == .partial(rejectedSpans: 3, message: "no \"room\""))
        #expect(parse("{\"partialSuccess\":{\"rejectedSpans\":4}}") == .partial(rejectedSpans: 4, message: ""))
        #expect(
            parse("{\"partialSuccess\":{\"errorMessage\":\"hint\"}}") == .partial(rejectedSpans: 0, message: "hint"))
    }

    @Test func unknownFieldsArePassedOver() {
        #expect(PartialSuccess(body: [0x1A, 0x01, 0x41, 0x20, 0x07, 0x29, 1, 2, 3, 4, 5, 6, 7, 8]) == .complete)
        #expect(parse("{\"other\":[1,2,{\"a\":null}],\"partialSuccess\":{\"more\":true}}") == .complete)
    }

    @Test(arguments: [
        "<html>hello</html>", "{", "{\"partialSuccess\":3}", "{\"partialSuccess\":{\"rejectedSpans\":\"many\"}}",
        "{} x", "{\"a\":\"\\ud83d\"", "OK",
    ])
    func nonsenseIsRecognised(body: String) {
        #expect(parse(body) == .nonsense)
    }

    @Test func longMessagesAreCut() {
        let body = "{\"partialSuccess\":{\"errorMessage\":\"\(String(repeating: "a", count: 5000))\"}}"
        #expect(
            parse(body)
                == .partial(
                    rejectedSpans: 0, message: String(repeating: "a", count: PartialSuccess.messageBytesMax)))
    }

    @Test func deepNestingIsRefusedInsteadOfFollowed() {
        #expect(JSONValue(parsing: Array(repeating: UInt8(ascii: "["), count: 100_000)) == nil)
    }

    @Test func jsonTextsAreReadByTheGrammar() {
        #expect(
            JSONValue(parsing: Array("[\"\\u00e9\\ud83d\\ude00\\n\",-1.5e3,true,null,{\"a\":[]}]".utf8))
                == .array([
                    .string("é\u{1F600}\n"), .number("-1.5e3"), .bool(true), .null, .object(["a": .array([])]),
                ]))
        for bad in ["", "[1,]", "{\"a\" 1}", "\"a\nb\"", "tru", "[1 2]", "\"\\x\""] {
            #expect(JSONValue(parsing: Array(bad.utf8)) == nil, "\(bad)")
        }
    }

    @Test(arguments: [21, 22] as [UInt64])
    func anyBytesAreAnswered(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let body = (0..<Int.random(in: 0...40, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
            }
            if case .partial(_, let message) = PartialSuccess(body: body) { #expect(message.utf8.count <= 3 * 40) }
        }
    }
}
