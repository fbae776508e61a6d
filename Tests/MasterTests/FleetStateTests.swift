import Testing

@testable import Master

private let second: UInt64 = 1_000_000_000
private let ms: UInt64 = 1_000_000

/// A generation with a clock that the test moves.
private struct Bench {
    var state: FleetState
    var nowNs: UInt64 = 1000 * second

    init(workers: Int = 2, hasExporter: Bool = true, isReady: Bool = true) {
        state = FleetState(
            workerCount: workers, hasExporter: hasExporter, patience: .init(drainNs: 30 * second, flushNs: 5 * second))
        _ = state.started()
        guard isReady else { return }
        for index in 0..<workers { _ = ready(.worker(index)) }
        if hasExporter { _ = ready(.exporter) }
    }

    mutating func ready(_ slot: ChildSlot) -> [FleetState.Action] { state.childReady(slot, nowNs: nowNs) }
    mutating func ended(_ slot: ChildSlot) -> [FleetState.Action] { state.childEnded(slot, nowNs: nowNs) }
    mutating func done(_ slot: ChildSlot) -> [FleetState.Action] {
        state.childEnded(slot, wasDone: true, nowNs: nowNs)
    }
    mutating func drain() -> [FleetState.Action] { state.drainRequested(nowNs: nowNs) }
    mutating func end() -> [FleetState.Action] { state.endRequested(nowNs: nowNs) }

    mutating func after(_ delayNs: UInt64) -> [FleetState.Action] {
        nowNs += delayNs
        return state.timePassed(nowNs: nowNs)
    }
}

@Suite struct FleetStateTests {
    @Test func everyChildIsStarted() {
        var state = FleetState(workerCount: 2, hasExporter: true, patience: .init(drainNs: 0, flushNs: 0))
        #expect(state.started() == [.spawn(.worker(0)), .spawn(.worker(1)), .spawn(.exporter)])
        #expect(state.wakeAtNs == nil)
    }

    @Test func readinessIsAnnouncedOnceWhenTheLastWorkerIsReady() {
        var bench = Bench(isReady: false)
        #expect(bench.ready(.worker(1)) == [])
        #expect(bench.ready(.worker(1)) == [])
        #expect(bench.ready(.worker(0)) == [.announceReady])
        _ = bench.ended(.worker(0))
        #expect(bench.ready(.worker(0)) == [])
    }

    @Test func aDeadWorkerIsReplacedAtOnce() {
        var bench = Bench()
        #expect(bench.ended(.worker(1)) == [.spawn(.worker(1))])
    }

    @Test func aCrashLoopIsSlowedDownForItsSlotOnly() {
        var bench = Bench()
        _ = bench.ended(.worker(1))
        #expect(bench.ended(.worker(1)) == [])
        #expect(bench.state.wakeAtNs == bench.nowNs + 100 * ms)
        #expect(bench.ended(.worker(0)) == [.spawn(.worker(0))])
        #expect(bench.after(99 * ms) == [])
        #expect(bench.after(1 * ms) == [.spawn(.worker(1))])
        #expect(bench.state.wakeAtNs == nil)
        #expect(bench.ended(.worker(1)) == [])
        #expect(bench.state.wakeAtNs == bench.nowNs + 200 * ms)
    }

    @Test func healthIsCountedFromReadiness() {
        var bench = Bench()
        _ = bench.ended(.worker(0))
        bench.nowNs += 60 * second
        #expect(bench.ended(.worker(0)) == [], "it was never ready")
        _ = bench.after(100 * ms)
        _ = bench.ready(.worker(0))
        bench.nowNs += 10 * second
        #expect(bench.ended(.worker(0)) == [.spawn(.worker(0))])
    }

    @Test func theExporterIsReplacedLikeAWorker() {
        var bench = Bench()
        #expect(bench.ended(.exporter) == [.spawn(.exporter)])
        #expect(bench.ended(.exporter) == [])
        #expect(bench.after(100 * ms) == [.spawn(.exporter)])
    }

    @Test func terminationDrainsWorkersThenTheExporter() {
        var bench = Bench()
        #expect(bench.drain() == [.drain(.worker(0)), .drain(.worker(1))])
        #expect(!bench.state.isServing)
        #expect(bench.state.wakeAtNs == bench.nowNs + 31 * second)
        #expect(bench.ended(.worker(1)) == [])
        #expect(bench.ended(.worker(0)) == [.drain(.exporter)])
        #expect(bench.state.wakeAtNs == bench.nowNs + 6 * second)
        #expect(bench.done(.exporter) == [.ended(status: 0)])
        #expect(bench.state.wakeAtNs == nil)
    }

    @Test func withoutAnExporterTheLastWorkerIsTheEnd() {
        var bench = Bench(workers: 1, hasExporter: false)
        #expect(bench.drain() == [.drain(.worker(0))])
        #expect(bench.ended(.worker(0)) == [.ended(status: 0)])
    }

    @Test func aStartingWorkerIsDrainedToo() {
        var bench = Bench(workers: 1, hasExporter: false, isReady: false)
        #expect(bench.drain() == [.drain(.worker(0))])
        #expect(bench.ready(.worker(0)) == [], "not announced any more")
    }

    @Test func aWorkerThatWaitsForItsRestartIsNotWaitedFor() {
        var bench = Bench(workers: 1)
        _ = bench.ended(.worker(0))
        _ = bench.ended(.worker(0))
        #expect(bench.drain() == [.drain(.exporter)])
        #expect(bench.after(second) == [], "no restart")
    }

    @Test func lateWorkersAreKilledAndSpansStillDelivered() {
        var bench = Bench()
        _ = bench.drain()
        _ = bench.ended(.worker(0))
        #expect(bench.after(31 * second - 1) == [])
        #expect(bench.after(1) == [.kill(.worker(1)), .drain(.exporter)])
        #expect(bench.ended(.worker(1)) == [])
        #expect(bench.done(.exporter) == [.ended(status: 0)])
    }

    @Test func aLateExporterIsKilled() {
        var bench = Bench(workers: 1)
        _ = bench.drain()
        _ = bench.ended(.worker(0))
        #expect(bench.after(6 * second) == [.kill(.exporter)])
        #expect(bench.done(.exporter) == [.ended(status: 0)])
    }

    @Test func anExporterThatDiesWhileWorkersDrainComesBack() {
        var bench = Bench(workers: 1)
        _ = bench.drain()
        #expect(bench.ended(.exporter) == [.spawn(.exporter)])
        #expect(bench.ended(.exporter) == [])
        #expect(bench.ended(.worker(0)) == [.spawn(.exporter), .drain(.exporter)], "at once, there may be spans")
        #expect(bench.done(.exporter) == [.ended(status: 0)], "not a third time")
    }

    @Test func aWorkerThatDiesWhileDrainingStaysDead() {
        var bench = Bench(workers: 2, hasExporter: false)
        _ = bench.drain()
        #expect(bench.ended(.worker(0)) == [])
        #expect(bench.after(20 * second) == [])
        #expect(bench.ended(.worker(1)) == [.ended(status: 0)])
    }

    @Test func anEndKillsEverything() {
        var bench = Bench()
        _ = bench.drain()
        #expect(bench.end() == [.kill(.worker(0)), .kill(.worker(1)), .kill(.exporter)])
        #expect(bench.ended(.worker(0)) == [])
        #expect(bench.ended(.exporter) == [])
        #expect(bench.end() == [], "a second one changes nothing")
        #expect(bench.ended(.worker(1)) == [.ended(status: 1)])
        #expect(bench.end() == [])
    }

    @Test func anEndCutsTheFlushShort() {
        var bench = Bench(workers: 1)
        _ = bench.drain()
        _ = bench.ended(.worker(0))
        #expect(bench.end() == [.kill(.exporter)])
        #expect(bench.ended(.exporter) == [.ended(status: 1)])
    }

    @Test func anExporterThatDiesInTheFlushIsReplacedAndToldToFinish() {
        var bench = Bench(workers: 1)
        _ = bench.drain()
        #expect(bench.ended(.worker(0)) == [.drain(.exporter)])
        #expect(bench.ended(.exporter) == [.spawn(.exporter), .drain(.exporter)])
        #expect(bench.ended(.exporter) == [], "the next one after a pause")
        #expect(bench.after(100 * ms) == [.spawn(.exporter), .drain(.exporter)])
        #expect(bench.done(.exporter) == [.ended(status: 0)])
    }

    @Test func aChildThatCannotBeKilledIsLeftBehind() {
        var bench = Bench(workers: 1, hasExporter: false)
        _ = bench.drain()
        _ = bench.end()
        #expect(bench.after(second - 1) == [])
        #expect(bench.after(1) == [.ended(status: 1)])
    }

    @Test func drainingTwiceIsDrainingOnce() {
        var bench = Bench()
        _ = bench.drain()
        #expect(bench.drain() == [])
    }

    @Test func aDrainCutShortKillsWorkersAndStillDelivers() {
        var bench = Bench()
        _ = bench.drain()
        #expect(
            bench.state.cutShort(nowNs: bench.nowNs) == [.kill(.worker(0)), .kill(.worker(1)), .drain(.exporter)])
        #expect(bench.state.cutShort(nowNs: bench.nowNs) == [])
        _ = bench.ended(.worker(0))
        _ = bench.ended(.worker(1))
        #expect(bench.done(.exporter) == [.ended(status: 0)])
    }

    @Test func adoptedChildrenAreNotStartedAgain() {
        let bench = Bench(isReady: false)
        let adopted = FleetState(
            adopting: [.worker(0), .exporter], ready: [.worker(0)], of: bench.state, nowNs: bench.nowNs)
        #expect(adopted.isReady(.worker(0)))
        #expect(!adopted.isReady(.exporter))
        var replacing = adopted
        #expect(replacing.timePassed(nowNs: bench.nowNs) == [.spawn(.worker(1))])
        #expect(replacing.childEnded(.worker(0), nowNs: bench.nowNs) == [.spawn(.worker(0))])
        var draining = adopted
        #expect(draining.drainRequested(nowNs: bench.nowNs) == [.drain(.worker(0))])
        #expect(draining.childEnded(.worker(0), nowNs: bench.nowNs) == [.drain(.exporter)])
    }
}
