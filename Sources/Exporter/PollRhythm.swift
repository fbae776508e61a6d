/// Whether the exporter looks into the rings by itself or lets producers wake it.
///
/// While trees keep coming it looks every `stepNs`, so that no producer pays for a wake-up; only when
/// nothing has come for `quietNs` and nothing waits does it sleep on the segment's wake descriptor.
struct PollRhythm {
    static let stepNs: UInt64 = 50_000_000
    static let quietNs: UInt64 = 100_000_000
    /// Longest sleep, should a wake-up be lost all the same.
    static let backstopNs: UInt64 = 1_000_000_000

    private var lastReadNs: UInt64

    init(nowNs: UInt64) {
        lastReadNs = nowNs
    }

    mutating func treesRead(nowNs: UInt64) {
        lastReadNs = nowNs
    }

    /// - Parameter isBatchOpen: Spans wait for their time.
    func maySleep(isBatchOpen: Bool, nowNs: UInt64) -> Bool {
        !isBatchOpen && nowNs >= lastReadNs + Self.quietNs
    }
}
