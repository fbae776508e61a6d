/// The ids of connection traces: made from the connection's number and seeds of its worker, so that neither a connection
/// nor the attempts that refer to it have to carry them, and who tells of a dead worker finds them again.
///
/// Each id is a step of SplitMix64 (Steele et al., 2014), which never gives two numbers the same one.
public struct ConnectionTraceIDs: Equatable, Sendable {
    @usableFromInline let highSeed: UInt64
    @usableFromInline let lowSeed: UInt64
    @usableFromInline let spanSeed: UInt64

    /// - Parameters: Random numbers.
    public init(highSeed: UInt64, lowSeed: UInt64, spanSeed: UInt64) {
        self.highSeed = highSeed
        self.lowSeed = lowSeed
        self.spanSeed = spanSeed
    }

    /// Trace and span of the connection of that number.
    @inlinable
    public subscript(number: UInt64) -> LinkTarget {
        LinkTarget(
            traceIDHigh: Self.mixed(highSeed, number), traceIDLow: Self.mixed(lowSeed, number),
            spanID: Self.mixed(spanSeed, number))
    }

    /// Never 0, which is no id.
    @inlinable
    static func mixed(_ seed: UInt64, _ number: UInt64) -> UInt64 {
        var word = seed &+ number &* 0x9E37_79B9_7F4A_7C15
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        word ^= word >> 31
        return word == 0 ? 1 : word
    }
}
