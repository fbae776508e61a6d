import ShmRing

/// Notices that workers had to drop trees, and says so at most every ten seconds, with totals.
struct LossWatch {
    static let intervalNs: UInt64 = 10_000_000_000

    private var reported: SpanCounters
    private var nextNs: UInt64 = 0

    /// - Parameter baseline: The counters at the start: what a predecessor saw is not news.
    init(baseline: SpanCounters) {
        reported = baseline
    }

    /// - Returns: How many trees were dropped since the last report, or nil when there is nothing to say now.
    mutating func newlyDropped(_ counters: SpanCounters, nowNs: UInt64) -> UInt64? {
        let dropped = Self.dropped(counters) &- Self.dropped(reported)
        guard dropped > 0, nowNs >= nextNs else { return nil }
        reported = counters
        nextNs = nowNs + Self.intervalNs
        return dropped
    }

    private static func dropped(_ counters: SpanCounters) -> UInt64 {
        counters.treesDroppedRingFull &+ counters.treesDroppedTooLarge
    }
}
