import ShmRing
import Testing

@testable import Exporter

@Suite struct ExporterStateTests {
    @Test func theMastersWordEndsTheWork() {
        var state = ShutdownState()
        #expect(!state.mustDrain)
        state.drainAsked()
        #expect(state.mustDrain)
    }

    @Test func withoutTheMasterItWorksUntilTheLastWriterIsGone() {
        var state = ShutdownState()
        state.masterGone()
        #expect(!state.mustDrain)
        state.writersGone()
        #expect(state.mustDrain)
    }

    @Test func writersMayBeGoneWhileTheMasterStartsNewOnes() {
        var state = ShutdownState()
        state.writersGone()
        #expect(!state.mustDrain)
    }

    @Test func logLinesAreLimitedAndCounted() {
        var limit = LogLimit()
        #expect(limit.admit(nowNs: 0) == 0)
        #expect(limit.admit(nowNs: 1) == nil)
        #expect(limit.admit(nowNs: LogLimit.intervalNs - 1) == nil)
        #expect(limit.admit(nowNs: LogLimit.intervalNs) == 2)
        #expect(limit.admit(nowNs: 2 * LogLimit.intervalNs) == 0)
    }

    @Test func lossesAreReportedOnceAndPaced() {
        var counters = SpanCounters()
        counters.treesDroppedRingFull = 5
        var watch = LossWatch(baseline: counters)
        #expect(watch.newlyDropped(counters, nowNs: 0) == nil)
        counters.treesDroppedRingFull = 8
        counters.treesDroppedTooLarge = 1
        #expect(watch.newlyDropped(counters, nowNs: 1) == 4)
        counters.treesDroppedRingFull = 9
        #expect(watch.newlyDropped(counters, nowNs: 2) == nil)
        #expect(watch.newlyDropped(counters, nowNs: 1 + LossWatch.intervalNs) == 1)
        #expect(watch.newlyDropped(counters, nowNs: 2 + 2 * LossWatch.intervalNs) == nil)
    }
}
