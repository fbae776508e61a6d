import Testing

@testable import Master

@Suite struct ListenerSweepTests {
    private let sets: [ListenerSet]

    init() throws {
        sets = try (0..<2).map { _ in try ListenerSet(ListenAddress(ip: "127.0.0.1", port: 0), count: 1) }
    }

    /// Looks until the sweep is over or asks for no further look.
    /// - Returns: How many looks there were, and whether it was over then.
    private func looks(_ sweep: inout ListenerSweep, _ answer: (Int, ListenerSet) -> Bool?) -> (
        count: Int, isOver: Bool
    ) {
        var count = 0
        while let nowNs = sweep.wakeAtNs {
            count += 1
            if sweep.timePassed(nowNs: nowNs, { answer(count, $0) }) { return (count, true) }
        }
        return (count, false)
    }

    @Test func itIsOverWhenNothingIsOnTheWayTwiceInARow() {
        var sweep = ListenerSweep(sets, nowNs: 1000)
        #expect(sweep.wakeAtNs == 1000 + ListenerSweep.pauseNs, "not at once")
        #expect(looks(&sweep) { _, _ in false } == (2, true))
        #expect(sweep.wakeAtNs == nil)
        let again = sweep.timePassed(nowNs: .max) { _ in false }
        #expect(!again)
    }

    @Test func nothingIsDoneBeforeItIsTime() {
        var sweep = ListenerSweep(sets, nowNs: 0)
        for _ in 0..<10 {
            let isOver = sweep.timePassed(nowNs: ListenerSweep.pauseNs - 1) { _ in false }
            #expect(!isOver)
        }
        #expect(sweep.wakeAtNs == ListenerSweep.pauseNs)
    }

    @Test func aHandshakeWithAnyOfTheSetsIsWaitedFor() {
        var sweep = ListenerSweep(sets, nowNs: 0)
        let last = sets[1]
        #expect(looks(&sweep) { count, set in set === last && (count == 2 || count == 5) } == (4, true))
        sweep = ListenerSweep(sets, nowNs: 0)
        #expect(looks(&sweep) { count, set in set === last && count.isMultiple(of: 2) && count < 20 } == (20, true))
    }

    @Test func whereTheKernelDoesNotSayTheWorkersHaveTheirOwnLimit() {
        var sweep = ListenerSweep(sets, nowNs: 0)
        let last = sets[1]
        #expect(looks(&sweep) { _, set in set === last ? nil : false } == (1, false))
    }
}
