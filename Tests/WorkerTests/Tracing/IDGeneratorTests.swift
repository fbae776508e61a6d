import Testing

@testable import Worker

@Suite struct IDGeneratorTests {
    /// xoshiro256** as its authors publish it, written again with plain words.
    private struct Reference {
        var words: [UInt64]

        mutating func next() -> UInt64 {
            let product = words[1] &* 5
            let result = (product << 7 | product >> 57) &* 9
            let shifted = words[1] << 17
            words[2] ^= words[0]
            words[3] ^= words[1]
            words[1] ^= words[2]
            words[0] ^= words[3]
            words[2] ^= shifted
            words[3] = words[3] << 45 | words[3] >> 19
            return result
        }
    }

    @Test func theSequenceIsThatOfThePublishedGenerator() {
        let seed: UInt64 = 42
        var generator = IDGenerator(seed: seed)
        var reference = Reference(
            words: [seed, seed ^ 0x9E37_79B9_7F4A_7C15, seed &* 0xBF58_476D_1CE4_E5B9, 1])
        for _ in 0..<1000 { #expect(generator.next() == reference.next()) }
    }

    @Test func twoWorkersNeverShareASequence() {
        var first = IDGenerator()
        var second = IDGenerator()
        let ids = (0..<1000).flatMap { _ in [first.next(), second.next()] }
        #expect(Set(ids).count == 2000)
    }

    @Test func anIdIsNeverZero() {
        // With this seed the first number of the plain sequence is zero.
        var plain = IDGenerator(seed: 0x9E37_79B9_7F4A_7C15)
        #expect(plain.next() == 0)
        var generator = IDGenerator(seed: 0x9E37_79B9_7F4A_7C15)
        #expect(generator.nextNonZero() != 0)
    }
}
