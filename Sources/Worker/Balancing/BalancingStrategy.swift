/// Chooses among backends. A strategy is a value: it sees the candidates and nothing else, so it is
/// tested as one.
protocol BalancingStrategy: Sendable {
    /// As `lb.strategy` says it.
    var name: StaticString { get }

    /// - Parameters:
    ///   - count: How many backends are configured.
    ///   - isCandidate: Whether the backend of an index may be chosen.
    /// - Returns: The chosen index, or nil when no backend is a candidate.
    mutating func choose(among count: Int, where isCandidate: (Int) -> Bool) -> Int?
}

/// Each backend in its turn.
struct RoundRobin: BalancingStrategy {
    private var next = 0

    var name: StaticString { "round_robin" }

    mutating func choose(among count: Int, where isCandidate: (Int) -> Bool) -> Int? {
        for step in 0..<count {
            let index = (next + step) % count
            guard isCandidate(index) else { continue }
            next = (index + 1) % count
            return index
        }
        return nil
    }
}
