/// Lets one line of a kind through in an interval and counts the rest, so that trouble with a collector or
/// a ring cannot flood the log.
struct LogLimit {
    static let intervalNs: UInt64 = 10_000_000_000

    private var nextNs: UInt64 = 0
    private var suppressed = 0

    /// - Returns: Nil when the line is to be left out, else how many were since the last one.
    mutating func admit(nowNs: UInt64) -> Int? {
        guard nowNs >= nextNs else {
            suppressed += 1
            return nil
        }
        defer { suppressed = 0 }
        nextNs = nowNs + Self.intervalNs
        return suppressed
    }
}
