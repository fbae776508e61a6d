/// Waits until something that comes in bursts has been quiet for a while.
///
///     event ─► waiting ─► 200 ms without another one, or 2 s after the first ─► over, once
struct QuietPeriod {
    static let quietNs: UInt64 = 200_000_000
    /// Where events never stop, such as in a folder that logs are written to as well, the wait ends all the same.
    static let waitNsMax: UInt64 = 2_000_000_000

    private var firstNs: UInt64?
    private var lastNs: UInt64 = 0

    /// When `isOver` is worth a call; nil when nothing has happened.
    var wakeAtNs: UInt64? {
        firstNs.map { min($0 + Self.waitNsMax, lastNs + Self.quietNs) }
    }

    mutating func eventOccurred(nowNs: UInt64) {
        if firstNs == nil { firstNs = nowNs }
        lastNs = nowNs
    }

    /// - Returns: True once for each burst.
    mutating func isOver(nowNs: UInt64) -> Bool {
        guard let wakeAtNs, nowNs >= wakeAtNs else { return false }
        firstNs = nil
        return true
    }
}
