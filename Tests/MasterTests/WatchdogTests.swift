import Testing

@testable import Master

private let second: UInt64 = 1_000_000_000

@Suite struct WatchdogTests {
    private var watchdog = Watchdog(limitNs: 10 * second)

    private mutating func judge(turned: UInt64, now: UInt64) -> Watchdog.Verdict {
        watchdog.judge(pid: 7, turnedNs: turned * second, nowNs: now * second)
    }

    @Test mutating func aWorkerThatTurnsOrHasNotBegunIsFine() {
        #expect(judge(turned: 0, now: 100) == .fine)
        #expect(judge(turned: 0, now: 103) == .fine)
        #expect(judge(turned: 95, now: 100) == .fine)
        #expect(judge(turned: 101, now: 100) == .fine, "the clock was read before")
    }

    @Test mutating func aStalledWorkerIsAbortedThenKilled() {
        #expect(judge(turned: 90, now: 100) == .fine, "suspected only")
        #expect(judge(turned: 90, now: 102) == .abort(stalledNs: 12 * second))
        #expect(judge(turned: 90, now: 103) == .fine, "it gets a moment")
        #expect(judge(turned: 90, now: 104) == .kill)
    }

    @Test mutating func aMachineThatStoodStillIsForgiven() {
        #expect(judge(turned: 90, now: 100) == .fine)
        #expect(judge(turned: 102, now: 102) == .fine)
        #expect(judge(turned: 102, now: 113) == .fine, "a new suspicion")
    }

    @Test mutating func itsSuccessorHasACleanRecord() {
        _ = judge(turned: 90, now: 100)
        watchdog.ended(pid: 7)
        #expect(judge(turned: 90, now: 110) == .fine)
    }

    @Test func withoutALimitNobodyIsWatched() {
        var watchdog = Watchdog(limitNs: 0)
        #expect(watchdog.periodNs == nil)
        #expect(watchdog.judge(pid: 7, turnedNs: 1, nowNs: .max) == .fine)
        #expect(watchdog.judge(pid: 7, turnedNs: 1, nowNs: .max) == .fine)
    }
}
