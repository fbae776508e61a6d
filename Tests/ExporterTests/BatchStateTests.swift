import Testing

@testable import Exporter

@Suite struct BatchStateTests {
    private let limits = BatchState.Limits(
        spansMin: 100, delayNs: 5_000, postIntervalNs: 50, urgentBytes: 2_000, bytesMax: 4_000)

    @Test func nothingWaitsAtFirst() {
        let state = BatchState(limits)
        #expect(state.action(nowNs: 1_000_000, isDraining: false) == .rest)
        #expect(state.action(nowNs: 1_000_000, isDraining: true) == .rest)
    }

    @Test func fewSpansWaitForTheDelayOfTheOldest() {
        var state = BatchState(limits)
        state.treeAdded(spans: 7, batchBytes: 100, nowNs: 1_000)
        state.treeAdded(spans: 7, batchBytes: 200, nowNs: 4_000)
        #expect(state.action(nowNs: 5_999, isDraining: false) == .wait(untilNs: 6_000))
        #expect(state.action(nowNs: 6_000, isDraining: false) == .post)
    }

    @Test func enoughSpansGoAtOnce() {
        var state = BatchState(limits)
        state.treeAdded(spans: 99, batchBytes: 100, nowNs: 1_000)
        #expect(state.action(nowNs: 1_000, isDraining: false) == .wait(untilNs: 6_000))
        state.treeAdded(spans: 1, batchBytes: 101, nowNs: 1_000)
        #expect(state.action(nowNs: 1_000, isDraining: false) == .post)
    }

    @Test func postsArePacedUnlessManyBytesWait() {
        var state = BatchState(limits)
        state.treeAdded(spans: 100, batchBytes: 100, nowNs: 1_000)
        state.posted(nowNs: 1_000)
        state.treeAdded(spans: 100, batchBytes: 1_999, nowNs: 1_010)
        #expect(state.action(nowNs: 1_049, isDraining: false) == .wait(untilNs: 1_050))
        #expect(state.action(nowNs: 1_050, isDraining: false) == .post)
        state.treeAdded(spans: 1, batchBytes: 2_000, nowNs: 1_020)
        #expect(state.action(nowNs: 1_020, isDraining: false) == .post)
    }

    @Test func drainingWaitsForNothing() {
        var state = BatchState(limits)
        state.posted(nowNs: 1_000)
        state.treeAdded(spans: 1, batchBytes: 10, nowNs: 1_001)
        #expect(state.action(nowNs: 1_001, isDraining: true) == .post)
    }

    @Test func batchIsFullAtItsLimitAndEmptyAfterwards() {
        var state = BatchState(limits)
        state.treeAdded(spans: 1, batchBytes: 3_999, nowNs: 0)
        #expect(!state.isFull)
        state.treeAdded(spans: 1, batchBytes: 4_000, nowNs: 0)
        #expect(state.isFull)
        #expect(state.trees == 2)
        state.posted(nowNs: 0)
        #expect(!state.isFull && !state.isOpen && state.spans == 0 && state.trees == 0)
    }

    @Test func treeWithoutSpansOpensNothing() {
        var state = BatchState(limits)
        state.treeAdded(spans: 0, batchBytes: 50, nowNs: 0)
        #expect(!state.isOpen)
    }

    @Test func ringsAreWatchedWhileTreesComeAndSleptOnWhenQuiet() {
        var rhythm = PollRhythm(nowNs: 0)
        #expect(!rhythm.maySleep(isBatchOpen: false, nowNs: PollRhythm.quietNs - 1))
        #expect(rhythm.maySleep(isBatchOpen: false, nowNs: PollRhythm.quietNs))
        #expect(!rhythm.maySleep(isBatchOpen: true, nowNs: PollRhythm.quietNs))
        rhythm.treesRead(nowNs: PollRhythm.quietNs)
        #expect(!rhythm.maySleep(isBatchOpen: false, nowNs: PollRhythm.quietNs))
    }
}
