/// Bounds retries to a share of the requests, so that a backend in trouble is not buried under them.
///
/// Every request earns a fifth of a retry, up to a reserve of 100, with which a worker begins.
struct RetryBudget: Equatable, Sendable {
    private static let fifthsPerRetry = 5
    private static let fifthsMax = 100 * fifthsPerRetry

    private var fifths = Self.fifthsMax

    mutating func requestBegan() { fifths = min(fifths + 1, Self.fifthsMax) }

    /// - Returns: False when there is nothing left to spend.
    mutating func spend() -> Bool {
        guard fifths >= Self.fifthsPerRetry else { return false }
        fifths -= Self.fifthsPerRetry
        return true
    }
}
