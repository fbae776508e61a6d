import CShims

/// Random numbers for trace and span ids: xoshiro256** (Blackman and Vigna, 2018), seeded by the kernel
/// after the fork, so that no two workers ever share a sequence. Not for secrets.
struct IDGenerator: RandomNumberGenerator {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    /// Seeds from getrandom(2).
    init() {
        var seed: InlineArray<4, UInt64> = [0, 0, 0, 0]
        let size = MemoryLayout.size(ofValue: seed)
        let count = unsafe withUnsafeMutableBytes(of: &seed) { unsafe getrandom($0.baseAddress!, size, 0) }
        precondition(count == size, "getrandom gave \(count) bytes")
        state = (seed[0], seed[1], seed[2], seed[3] | 1)
    }

    /// A fixed sequence, for tests.
    init(seed: UInt64) {
        state = (seed, seed ^ 0x9E37_79B9_7F4A_7C15, seed &* 0xBF58_476D_1CE4_E5B9, 1)
    }

    mutating func next() -> UInt64 {
        func rotated(_ value: UInt64, _ count: UInt64) -> UInt64 { value << count | value >> (64 - count) }
        let result = rotated(state.1 &* 5, 7) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = rotated(state.3, 45)
        return result
    }

    /// An id: zero is not one (W3C Trace Context §3.2.2).
    mutating func nextNonZero() -> UInt64 {
        while true {
            let value = next()
            if value != 0 { return value }
        }
    }
}
