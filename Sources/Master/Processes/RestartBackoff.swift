/// How long a child that died waits before it is started again.
///
/// The first death restarts at once; then 100 ms, doubled each time up to 10 s. A child that was healthy for
/// 10 s has earned a fresh start.
struct RestartBackoff {
    static let delayNsMin: UInt64 = 100_000_000
    static let delayNsMax: UInt64 = 10_000_000_000
    static let healthyNs: UInt64 = 10_000_000_000

    /// Deaths since the last healthy time.
    private var deaths = 0

    /// - Parameter healthNs: How long the child had been ready when it died, in nanoseconds; 0 if it never was.
    /// - Returns: How long to wait, in nanoseconds.
    mutating func childDied(healthNs: UInt64) -> UInt64 {
        if healthNs >= Self.healthyNs { deaths = 0 }
        defer { deaths += 1 }
        guard deaths > 0 else { return 0 }
        // Seven doublings pass the maximum.
        return min(Self.delayNsMin << UInt64(min(deaths - 1, 7)), Self.delayNsMax)
    }
}
