/// Notices workers whose loop has not turned for too long. A value without I/O.
///
///     turning ──not for the limit──► suspected ──nor until the next look──► aborted (a core shows where it hangs)
///        ▲                               │                                     │ 2 s
///        └──────── turned after all ─────┘                                     └──► killed
///
/// The second look keeps a machine that stood still, with everything on it, from being mistaken for a worker that does.
struct Watchdog {
    enum Verdict: Equatable {
        case fine
        case abort(stalledNs: UInt64)
        case kill
    }

    private enum Suspicion {
        case suspected(turnedNs: UInt64)
        case aborted(atNs: UInt64)
    }

    /// How long a worker may take to die of SIGABRT, which writes a core.
    static let graceNs: UInt64 = 2_000_000_000

    /// 0: nobody is watched.
    let limitNs: UInt64
    private var suspicions: [Int32: Suspicion] = [:]

    init(limitNs: UInt64) {
        self.limitNs = limitNs
    }

    /// How often to look, and how often a worker at rest turns, in nanoseconds; nil: never.
    var periodNs: UInt64? { limitNs == 0 ? nil : max(limitNs / 4, 50_000_000) }

    /// - Parameter turnedNs: As `StatusBoard` has it: when the loop turned last, 0 when it has not yet.
    mutating func judge(pid: Int32, turnedNs: UInt64, nowNs: UInt64) -> Verdict {
        guard limitNs > 0, turnedNs > 0, nowNs > turnedNs, nowNs - turnedNs >= limitNs else {
            suspicions[pid] = nil
            return .fine
        }
        switch suspicions[pid] {
        case .suspected(turnedNs):
            suspicions[pid] = .aborted(atNs: nowNs)
            return .abort(stalledNs: nowNs - turnedNs)
        case .aborted(let atNs): return nowNs - atNs >= Self.graceNs ? .kill : .fine
        case .suspected, nil:
            suspicions[pid] = .suspected(turnedNs: turnedNs)
            return .fine
        }
    }

    mutating func ended(pid: Int32) { suspicions[pid] = nil }
}
