/// Passive health of one backend as one worker sees it.
///
///                failuresMax failures in a row
///     healthy ───────────────────────────────► out until T (pause 1 s, doubling to 30 s)
///        ▲                                          │ T is over
///        │ success                                  ▼
///        └──────────────────────────────────── one trial request at a time ── failure ─► out, longer
///
/// A value without I/O: events come with their time in monotonic nanoseconds.
struct HealthState: Equatable, Sendable {
    private enum Phase: Equatable, Sendable {
        case healthy
        case out(untilNs: UInt64)
        case trial
    }

    private var phase = Phase.healthy
    private var pauseNs: UInt64
    /// Failures since the last success.
    private(set) var failures = 0
    private let policy: Policy

    struct Policy: Equatable, Sendable {
        var failuresMax = 3
        var pauseNsMin: UInt64 = 1_000_000_000
        var pauseNsMax: UInt64 = 30_000_000_000
    }

    init(_ policy: Policy = Policy()) {
        self.policy = policy
        pauseNs = policy.pauseNsMin
    }

    var isHealthy: Bool { phase == .healthy }

    /// Whether a request may go there now.
    func admits(nowNs: UInt64) -> Bool {
        switch phase {
        case .healthy: true
        case .out(let until): nowNs >= until
        case .trial: false
        }
    }

    /// A request was sent there.
    /// - Returns: True when it is the trial on which the backend's return depends.
    mutating func requestStarted(nowNs: UInt64) -> Bool {
        guard case .out(let until) = phase, nowNs >= until else { return false }
        phase = .trial
        return true
    }

    /// A response head arrived, whatever its status.
    /// - Returns: True when this brought the backend back.
    mutating func requestSucceeded() -> Bool {
        failures = 0
        pauseNs = policy.pauseNsMin
        guard phase == .trial else { return false }
        phase = .healthy
        return true
    }

    /// A connect failure, a reset before a response, or a timeout.
    /// - Returns: True when this took the backend out (or left it out after a trial).
    mutating func requestFailed(nowNs: UInt64, wasTrial: Bool) -> Bool {
        failures += 1
        switch phase {
        case .healthy:
            guard failures >= policy.failuresMax else { return false }
            phase = .out(untilNs: nowNs &+ pauseNs)
            return true
        case .trial:
            guard wasTrial else { return false }
            pauseNs = min(pauseNs * 2, policy.pauseNsMax)
            phase = .out(untilNs: nowNs &+ pauseNs)
            return true
        case .out:
            return false
        }
    }

    /// The trial ended without telling anything about the backend, say because the client left: the next
    /// request is a trial again.
    mutating func trialAbandoned(nowNs: UInt64) {
        if phase == .trial { phase = .out(untilNs: nowNs) }
    }

    /// When the backend may be tried again; nil when it is healthy.
    var retryAtNs: UInt64? {
        if case .out(let until) = phase { until } else { nil }
    }
}
