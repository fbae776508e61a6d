/// A small generator with a seed, so that what a random test found can be had again: each seed is an
/// argument of its test, and the test's report names it. (Steele, Lea, Flood: Fast Splittable
/// Pseudorandom Number Generators, figure 17.)
struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// Damages messages at random, with a liking for the bytes that matter to a parser.
struct Mutator {
    private var random: SplitMix64
    private static let telling = Array("\r\n\0\t :;,/#@[]0159afAF-+\u{7F}é".utf8)

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    /// One to four changes to `message`, some of which bring in pieces of `other`.
    mutating func mutated(_ message: [UInt8], with other: [UInt8]) -> [UInt8] {
        var bytes = message
        for _ in 0..<Int.random(in: 1...4, using: &random) { change(&bytes, with: other) }
        return bytes
    }

    /// Places to cut `count` bytes at, in order, the end included.
    mutating func cuts(of count: Int) -> [Int] {
        let wanted = Int.random(in: 0...8, using: &random)
        return (0..<wanted).map { _ in Int.random(in: 0...count, using: &random) }.sorted() + [count]
    }

    private mutating func change(_ bytes: inout [UInt8], with other: [UInt8]) {
        let at = Int.random(in: 0...bytes.count, using: &random)
        switch Int.random(in: 0..<6, using: &random) {
        case 0: bytes.insert(Self.telling.randomElement(using: &random)!, at: at)
        case 1: if at < bytes.count { bytes[at] = UInt8.random(in: 0...255, using: &random) }
        case 2: if at < bytes.count { bytes[at] = Self.telling.randomElement(using: &random)! }
        case 3: if at < bytes.count { bytes.remove(at: at) }
        case 4: bytes.insert(contentsOf: slice(of: bytes), at: at)
        default: bytes.insert(contentsOf: slice(of: other), at: at)
        }
    }

    private mutating func slice(of bytes: [UInt8]) -> ArraySlice<UInt8> {
        let low = Int.random(in: 0...bytes.count, using: &random)
        return bytes[low..<min(bytes.count, low + Int.random(in: 0...24, using: &random))]
    }
}
