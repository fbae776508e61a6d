/// What a collector's answer means for a batch.
enum DeliveryVerdict: Equatable {
    case delivered
    /// The collector may take it later (OTLP specification, "Retryable Response Codes").
    case retry
    /// The collector will never take it: repeating it would only fill the ring.
    case drop

    init(status: Int) {
        switch status {
        case 200..<300: self = .delivered
        case 429, 502, 503, 504: self = .retry
        default: self = .drop
        }
    }
}

/// When to post after failures: exponential backoff with full jitter, one post at a time until one succeeds.
///
///     (open) ──failed──► (closed until t) ──t──► (one probe) ──succeeded──► (open)
///                              ▲                      │
///                              └───────failed─────────┘
///
/// It judges the collector, not a batch: when posts in flight together fail together, that is one failure.
/// A value without I/O; the driver passes time and randomness in.
struct RetryPolicy {
    static let baseNs: UInt64 = 500_000_000
    static let maxNs: UInt64 = 10_000_000_000
    /// Keeps full jitter from drawing no pause at all.
    static let minNs: UInt64 = 50_000_000
    /// A collector cannot silence us for longer than this with Retry-After.
    static let retryAfterMaxNs: UInt64 = 300_000_000_000
    /// Longest pause once the process is to end.
    static let drainingMaxNs: UInt64 = 500_000_000

    private(set) var failures = 0
    /// No post before this time.
    private(set) var closedUntilNs: UInt64 = 0
    private var lastFailureNs: UInt64 = 0
    private var isDraining = false

    /// - Parameter postsInFlight: How many there are already.
    func mayPost(nowNs: UInt64, postsInFlight: Int) -> Bool {
        failures == 0 || (nowNs >= closedUntilNs && postsInFlight == 0)
    }

    mutating func succeeded() {
        failures = 0
        closedUntilNs = 0
    }

    /// A post failed in a way that may pass.
    /// - Parameters:
    ///   - startedNs: When it was sent. One sent before the last failure was known brings no news.
    ///   - retryAfterNs: What the collector asked for, 0 for nothing.
    ///   - random: Any 64 random bits.
    mutating func failed(startedNs: UInt64, nowNs: UInt64, retryAfterNs: UInt64, random: UInt64) {
        let isNews = failures == 0 || startedNs >= lastFailureNs
        lastFailureNs = nowNs
        if isNews { failures += 1 }
        let asked = nowNs + min(retryAfterNs, Self.retryAfterMaxNs)
        let backoff = isNews ? nowNs + pauseNs(random: random) : closedUntilNs
        closedUntilNs = max(asked, backoff)
    }

    /// The process is to end: one attempt at once, short pauses from here on.
    mutating func drainBegan() {
        isDraining = true
        closedUntilNs = 0
    }

    /// Full jitter: anything between nothing and base · 2ⁿ⁻¹ (Brooker, "Exponential Backoff And Jitter").
    private func pauseNs(random: UInt64) -> UInt64 {
        let doublings = UInt64(min(failures - 1, 10))
        let ceiling = min(Self.baseNs << doublings, isDraining ? Self.drainingMaxNs : Self.maxNs)
        return max(random.multipliedFullWidth(by: ceiling).high, Self.minNs)
    }
}
