import Testing

@testable import Master

private let second: UInt64 = 1_000_000_000

/// Generation 1 serves; the test moves the clock.
private struct Bench {
    typealias Action = SupervisorState.Action

    var state: SupervisorState
    var nowNs: UInt64 = 1000 * second

    init(drainingMax: Int = 4) {
        state = SupervisorState(
            current: 1, limits: .init(readyTimeoutNs: 10 * second, drainingGenerationsMax: drainingMax))
        _ = ready(1)
    }

    mutating func reload(_ kind: SupervisorState.Reload) -> [Action] { state.reloadRequested(kind, nowNs: nowNs) }
    mutating func preflight(passed: Bool) -> [Action] { state.preflightEnded(passed: passed, nowNs: nowNs) }
    mutating func started(_ generation: UInt32) { state.candidateStarted(generation, nowNs: nowNs) }
    mutating func ready(_ generation: UInt32) -> [Action] { state.generationReady(generation, nowNs: nowNs) }
    mutating func ended(_ generation: UInt32) -> [Action] { state.generationEnded(generation, status: 0) }

    mutating func after(_ delayNs: UInt64) -> [Action] {
        nowNs += delayNs
        return state.timePassed(nowNs: nowNs)
    }

    /// A whole reload without exec.
    mutating func replace(by generation: UInt32) -> [Action] {
        _ = reload(.inPlace)
        started(generation)
        return ready(generation)
    }
}

@Suite struct SupervisorStateTests {
    @Test func theFirstGenerationIsAnnounced() {
        var state = SupervisorState(current: 1, limits: .init())
        #expect(state.generationReady(1, nowNs: 0) == [.announce(generation: 1)])
        #expect(state.wakeAtNs == nil)
    }

    @Test func aReloadInPlaceStartsAGenerationThatReplacesTheOldOne() {
        var bench = Bench()
        #expect(bench.reload(.inPlace) == [.openCandidate])
        bench.started(2)
        #expect(bench.state.current == 1, "until the new one is ready")
        #expect(bench.ready(2) == [.announce(generation: 2), .drain(generation: 1, successor: 2)])
        #expect(bench.state.current == 2)
        #expect(bench.ended(1) == [])
        #expect(bench.state.isServing)
    }

    @Test func aReloadLastsFromItsRequestToItsEnd() {
        var bench = Bench()
        #expect(!bench.state.isReloading)
        _ = bench.reload(.newProgram)
        #expect(bench.state.isReloading)
        _ = bench.preflight(passed: false)
        #expect(!bench.state.isReloading)
        _ = bench.reload(.inPlace)
        bench.started(2)
        #expect(bench.state.isReloading)
        _ = bench.ready(2)
        #expect(!bench.state.isReloading)
    }

    @Test func aNewProgramIsCheckedBeforeItIsExecuted() {
        var bench = Bench()
        #expect(bench.reload(.newProgram) == [.startPreflight])
        #expect(bench.preflight(passed: true) == [.execute])
    }

    @Test func theNewImageGoesOnWithACandidate() {
        var state = SupervisorState(current: 3, draining: [2], limits: .init())
        #expect(state.executed() == [.openCandidate])
        state.candidateStarted(4, nowNs: 0)
        #expect(
            state.generationReady(4, nowNs: 1) == [.announce(generation: 4), .drain(generation: 3, successor: 4)])
    }

    @Test func aFailedPreflightChangesNothing() {
        var bench = Bench()
        _ = bench.reload(.newProgram)
        #expect(bench.preflight(passed: false) == [])
        #expect(bench.state.current == 1)
        #expect(bench.reload(.newProgram) == [.startPreflight], "the next one is tried")
    }

    @Test func aPreflightThatHangsIsStopped() {
        var bench = Bench()
        _ = bench.reload(.newProgram)
        #expect(bench.after(10 * second - 1) == [])
        #expect(bench.after(1) == [.stopPreflight])
        #expect(bench.preflight(passed: true) == [], "too late")
    }

    @Test func aFailedExecutionChangesNothing() {
        var bench = Bench()
        _ = bench.reload(.newProgram)
        _ = bench.preflight(passed: true)
        #expect(bench.state.executionFailed(nowNs: bench.nowNs) == [])
        #expect(bench.reload(.inPlace) == [.openCandidate])
    }

    @Test func aConfigurationThatCannotBeUsedChangesNothing() {
        var bench = Bench()
        _ = bench.reload(.inPlace)
        #expect(bench.state.candidateRefused(nowNs: bench.nowNs) == [])
        #expect(bench.state.current == 1)
    }

    @Test func aGenerationThatIsLateDrainsAndTheOldOneStays() {
        var bench = Bench()
        _ = bench.reload(.inPlace)
        bench.started(2)
        #expect(bench.state.wakeAtNs == bench.nowNs + 10 * second)
        #expect(bench.after(10 * second) == [.reportLate(generation: 2), .drain(generation: 2, successor: 1)])
        #expect(bench.state.current == 1)
        #expect(bench.ready(2) == [], "too late")
        #expect(bench.ended(2) == [])
    }

    @Test func aRequestDuringAReloadFollowsItOnce() {
        var bench = Bench()
        _ = bench.reload(.inPlace)
        bench.started(2)
        #expect(bench.reload(.inPlace) == [])
        #expect(bench.reload(.inPlace) == [])
        #expect(
            bench.ready(2) == [.announce(generation: 2), .drain(generation: 1, successor: 2), .openCandidate])
        bench.started(3)
        #expect(bench.ready(3) == [.announce(generation: 3), .drain(generation: 2, successor: 3)])
    }

    @Test func ofTwoWaitingRequestsTheLargerStands() {
        var bench = Bench()
        _ = bench.reload(.inPlace)
        _ = bench.reload(.newProgram)
        _ = bench.reload(.inPlace)
        #expect(bench.state.candidateRefused(nowNs: bench.nowNs) == [.startPreflight])
    }

    @Test func aReloadDuringADrainAddsADrainingGeneration() {
        var bench = Bench()
        _ = bench.replace(by: 2)
        #expect(bench.replace(by: 3) == [.announce(generation: 3), .drain(generation: 2, successor: 3)])
    }

    @Test func beyondTheMaximumTheOldestIsCutShortOnce() {
        var bench = Bench(drainingMax: 1)
        _ = bench.replace(by: 2)
        #expect(bench.replace(by: 3).last == .cutShort(generation: 1))
        #expect(bench.replace(by: 4).suffix(2) == [.drain(generation: 3, successor: 4), .cutShort(generation: 2)])
    }

    @Test func terminationDrainsEveryGenerationThatServes() {
        var bench = Bench()
        _ = bench.replace(by: 2)
        #expect(bench.state.terminationRequested() == [.drain(generation: 2, successor: nil)])
        #expect(!bench.state.isServing)
        #expect(bench.ended(1) == [])
        #expect(bench.ended(2) == [.exit(status: 0)])
    }

    @Test func terminationDuringAReloadDrainsTheCandidateToo() {
        var bench = Bench()
        _ = bench.reload(.inPlace)
        bench.started(2)
        #expect(
            bench.state.terminationRequested() == [
                .drain(generation: 1, successor: nil), .drain(generation: 2, successor: nil),
            ])
        #expect(bench.ready(2) == [])
        #expect(bench.ended(2) == [])
        #expect(bench.ended(1) == [.exit(status: 0)])
    }

    @Test func terminationStopsAPreflight() {
        var bench = Bench()
        _ = bench.reload(.newProgram)
        #expect(bench.state.terminationRequested() == [.stopPreflight, .drain(generation: 1, successor: nil)])
        #expect(bench.preflight(passed: true) == [])
    }

    @Test func aSecondTerminationEndsEverything() {
        var bench = Bench()
        _ = bench.replace(by: 2)
        _ = bench.state.terminationRequested()
        #expect(bench.state.terminationRequested() == [.end(generation: 1), .end(generation: 2)])
        #expect(bench.state.generationEnded(2, status: 1) == [])
        #expect(bench.state.generationEnded(1, status: 0) == [.exit(status: 1)])
        #expect(bench.state.terminationRequested() == [])
    }

    @Test func nothingIsReloadedAfterTermination() {
        var bench = Bench()
        _ = bench.state.terminationRequested()
        #expect(bench.reload(.newProgram) == [])
    }
}
