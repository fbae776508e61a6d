import Testing

@testable import ShmRing

@Suite struct RecordTextTests {
    private func sanitized(_ bytes: [UInt8], bytesMax: Int = 100) -> (text: String?, isCut: Bool) {
        let (text, isCut) = RecordText.sanitized(bytes.span, bytesMax: bytesMax)
        return (String(validating: text, as: UTF8.self), isCut)
    }

    private func isASCII(_ bytes: [UInt8]) -> Bool { RecordText.isASCII(bytes.span) }

    @Test(arguments: ["", "plain", "é", "€", "\u{D7FF}\u{E000}", "😀", "\u{10FFFF}", "a\0b"])
    func wellFormedTextStaysAsItIs(text: String) {
        let (found, isCut) = sanitized(Array(text.utf8))
        #expect(found == text)
        #expect(!isCut)
    }

    @Test(arguments: [
        ([0x80], "%80"), ([0xFF, 0x41], "%FFA"), ([0xC0, 0xAF], "%C0%AF"), ([0xC1, 0xBF], "%C1%BF"),
        ([0xC3], "%C3"),
        ([0xE0, 0x80, 0x80], "%E0%80%80"), ([0xED, 0xA0, 0x80], "%ED%A0%80"), ([0xE2, 0x82], "%E2%82"),
        ([0xF0, 0x80, 0x80, 0x80], "%F0%80%80%80"), ([0xF4, 0x90, 0x80, 0x80], "%F4%90%80%80"),
        ([0xF5, 0x80, 0x80, 0x80], "%F5%80%80%80"), ([0xF0, 0x9F, 0x98], "%F0%9F%98"), ([0xC3, 0x41], "%C3A"),
        ([0xE2, 0x82, 0x41], "%E2%82A"), ([0xF0, 0x9F, 0x98, 0x41], "%F0%9F%98A"),
    ])
    func illFormedBytesArePercentEscaped(bytes: [UInt8], expected: String) {
        let (found, isCut) = sanitized(bytes)
        #expect(found == expected)
        #expect(!isCut)
    }

    @Test func aCutFallsOnACharactersBoundary() {
        for bytesMax in 0..<8 {
            let (found, isCut) = sanitized(Array("a€😀".utf8), bytesMax: bytesMax)
            #expect(found == (bytesMax < 1 ? "" : bytesMax < 4 ? "a" : "a€"))
            #expect(isCut)
        }
        #expect(sanitized(Array("a€😀".utf8), bytesMax: 8) == ("a€😀", false))
    }

    @Test func anEscapeIsNeverCutInTwo() {
        #expect(sanitized([0x41, 0xFF, 0x42], bytesMax: 3) == ("A", true))
        #expect(sanitized([0x41, 0xFF], bytesMax: 4) == ("A%FF", false))
    }

    @Test(arguments: 0..<100 as Range<UInt64>)
    func whateverComesOutIsUTF8AndFits(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let pool: [UInt8] = [0x41, 0x80, 0xBF, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0x9F, 0xA0, 0x90, 0x8F, 0xFF]
        let bytes = (0..<40).map { _ in pool.randomElement(using: &random)! }
        for bytesMax in [0, 1, 5, 39, 40, 120] {
            let (text, _) = RecordText.sanitized(bytes.span, bytesMax: bytesMax)
            #expect(text.count <= bytesMax)
            #expect(String(validating: text, as: UTF8.self) != nil)
        }
    }

    @Test func isASCIILooksAtEveryByte() {
        #expect(isASCII(Array("plain\u{7F}".utf8)))
        #expect(isASCII([]))
        for position in 0..<20 {
            var bytes = [UInt8](repeating: 0x41, count: 20)
            bytes[position] = 0x80
            #expect(!isASCII(bytes))
        }
    }
}
