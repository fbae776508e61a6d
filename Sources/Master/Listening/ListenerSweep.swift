/// Listeners that take nothing new have clients in their queues, and clients on their way into them, whose handshake
/// has begun. This finds out when there are none of the latter any more: then the workers empty the queues once more
/// and are done with them.
///
///     refuse new connections ─► look, again and again ─► nothing twice in a row ─► over
///                                                   └──► never, or the kernel does not say: the workers' own limit
struct ListenerSweep {
    /// Between two looks. The first is not at once: a segment may be between the filter and its handshake.
    static let pauseNs: UInt64 = 5_000_000
    /// A handshake that ends just now is for a moment neither under way nor in a queue.
    private static let quietLooksNeeded = 2

    let sets: [ListenerSet]
    /// When to look; nil when it is over.
    private(set) var wakeAtNs: UInt64?
    private var quietLooks = 0

    /// - Parameter sets: They refuse new connections already.
    init(_ sets: [ListenerSet], nowNs: UInt64) {
        self.sets = sets
        wakeAtNs = nowNs + Self.pauseNs
    }

    /// Looks, if it is time.
    /// - Parameter hasOpenHandshakes: Nil when nobody knows.
    /// - Returns: True once: when nothing is on its way any more.
    mutating func timePassed(nowNs: UInt64, _ hasOpenHandshakes: (ListenerSet) -> Bool?) -> Bool {
        guard let wakeAtNs, nowNs >= wakeAtNs else { return false }
        let answers = sets.map(hasOpenHandshakes)
        guard !answers.contains(nil) else {
            self.wakeAtNs = nil
            return false
        }
        quietLooks = answers.contains(true) ? 0 : quietLooks + 1
        let isOver = quietLooks == Self.quietLooksNeeded
        self.wakeAtNs = isOver ? nil : nowNs + Self.pauseNs
        return isOver
    }
}
