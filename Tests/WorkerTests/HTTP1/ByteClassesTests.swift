import Testing

@testable import Worker

@Suite struct ByteClassesTests {
    private static let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    private func members(where isMember: (UInt8) -> Bool) -> Set<UInt8> {
        Set((UInt8.min...UInt8.max).filter(isMember))
    }

    @Test func tokenBytesAreThoseOfTheGrammar() {
        #expect(members(where: isTokenByte) == Set("!#$%&'*+-.^_`|~0123456789\(Self.letters)".utf8))
    }

    @Test func registeredNameBytesAreThoseOfTheGrammarButTheComma() {
        #expect(members(where: isRegNameByte) == Set("-._~%!$&'()*+;=0123456789\(Self.letters)".utf8))
    }

    @Test func targetBytesAreVisibleAndNoFragmentSign() {
        #expect(members(where: isTargetByte) == Set(0x21...0xFF).subtracting([0x7F, UInt8(ascii: "#")]))
    }

    @Test func digitsAreTen() {
        #expect(members(where: isDigit) == Set("0123456789".utf8))
    }

    @Test func onlyLettersChangeCase() {
        for byte in UInt8.min...UInt8.max {
            let isUpper = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
            #expect(lowercased(byte) == (isUpper ? byte + 0x20 : byte))
        }
    }

    @Test func eightBytesAtOnceAreTheSameAsOneByOne() {
        for byte in UInt8.min...UInt8.max {
            for place in 0..<8 {
                // Neighbours of all ones and of all zeros, from which nothing must carry over.
                for around in [UInt64.min, .max] {
                    let shift = UInt64(8 * place)
                    let word = around & ~(0xFF << shift) | UInt64(byte) << shift
                    let wanted = around & ~(0xFF << shift) | UInt64(lowercased(byte)) << shift
                    #expect(lowercased(word: word) == wanted)
                }
            }
        }
    }

    private func isHost(_ text: String) -> Bool { Array(text.utf8).span.matchesIgnoringCase("host") }

    private func areEqual(_ left: String, _ right: String) -> Bool {
        let right = Array(right.utf8)
        return Array(left.utf8).span.matchesIgnoringCase(right.span)
    }

    private func endOfText(_ bytes: [UInt8], from start: Int) -> Int { bytes.span.endOfFieldText(from: start) }

    @Test func matchingNeedsEveryByte() {
        #expect(isHost("Host"))
        #expect(!isHost("Hos"))
        #expect(!isHost("Hosts"))
        #expect(!isHost("h\u{0F}st"))
        #expect(areEqual("X-aB", "x-Ab"))
        #expect(!areEqual("X-aB", "x-Abc"))
        // "[" and "{" differ in the case bit alone, and are no letters.
        #expect(!areEqual("[", "{"))
    }

    /// Every byte at every place in and around an eight-byte step.
    @Test func endOfFieldTextStopsAtTheFirstForbiddenByte() {
        for byte in UInt8.min...UInt8.max {
            let isForbidden = (byte < 0x20 && byte != 0x09) || byte == 0x7F
            for position in 0..<27 {
                var text = [UInt8](repeating: 0x7E, count: 27)
                text[position] = byte
                #expect(endOfText(text, from: 0) == (isForbidden ? position : 27))
                #expect(endOfText(text, from: min(position + 1, 27)) == 27)
            }
        }
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func endOfFieldTextAgreesWithBytewiseSearch(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let pool: [UInt8] = [0x09, 0x20, 0x1F, 0x7E, 0x7F, 0x80, 0xFF, 0x41, 0x41, 0x41, 0x00, 0x01, 0x21]
        let text = (0..<64).map { _ in pool.randomElement(using: &random)! }
        for start in 0...64 {
            let expected = (start..<64).first { (text[$0] < 0x20 && text[$0] != 0x09) || text[$0] == 0x7F } ?? 64
            #expect(endOfText(text, from: start) == expected)
        }
    }
}
