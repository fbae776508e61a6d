import Testing

@testable import Worker

@Suite struct HealthStateTests {
    private static let second: UInt64 = 1_000_000_000

    /// Out since `nowNs` by three failures.
    private func outState(_ policy: HealthState.Policy = .init(), nowNs: UInt64 = 0) -> HealthState {
        var state = HealthState(policy)
        for _ in 0..<policy.failuresMax { _ = state.requestFailed(nowNs: nowNs, wasTrial: false) }
        return state
    }

    /// A trial that is begun and fails as soon as the pause allows.
    /// - Returns: How long the next pause is.
    private func pauseAfterFailedTrial(_ state: inout HealthState, nowNs: inout UInt64) -> UInt64? {
        guard let retryAt = state.retryAtNs else { return nil }
        nowNs = retryAt
        guard state.requestStarted(nowNs: nowNs), state.requestFailed(nowNs: nowNs, wasTrial: true) else { return nil }
        return state.retryAtNs.map { $0 - nowNs }
    }

    @Test func aNewBackendIsHealthyAndAdmits() {
        let state = HealthState()
        #expect(state.isHealthy)
        #expect(state.admits(nowNs: 0))
        #expect(state.retryAtNs == nil)
    }

    @Test func theThirdFailureInARowTakesItOut() {
        var state = HealthState()
        #expect(state.requestFailed(nowNs: 5, wasTrial: false) == false)
        #expect(state.requestFailed(nowNs: 5, wasTrial: false) == false)
        #expect(state.isHealthy)
        #expect(state.requestFailed(nowNs: 5, wasTrial: false) == true)
        #expect(!state.isHealthy)
        #expect(state.failures == 3)
        #expect(state.retryAtNs == 5 + Self.second)
    }

    @Test func aSuccessBetweenFailuresStartsTheCountAnew() {
        var state = HealthState()
        for _ in 0..<2 { _ = state.requestFailed(nowNs: 0, wasTrial: false) }
        #expect(state.requestSucceeded() == false)
        for _ in 0..<2 { _ = state.requestFailed(nowNs: 0, wasTrial: false) }
        #expect(state.isHealthy)
        #expect(state.failures == 2)
    }

    @Test func anOutBackendAdmitsFromTheEndOfItsPause() {
        let state = outState(nowNs: 7)
        #expect(!state.admits(nowNs: 7 + Self.second - 1))
        #expect(state.admits(nowNs: 7 + Self.second))
    }

    @Test func furtherFailuresDoNotLengthenThePause() {
        var state = outState()
        #expect(state.requestFailed(nowNs: Self.second / 2, wasTrial: false) == false)
        #expect(state.retryAtNs == Self.second)
    }

    @Test func thereIsOneTrialAtATime() {
        var state = outState()
        #expect(state.requestStarted(nowNs: Self.second - 1) == false)
        #expect(state.requestStarted(nowNs: Self.second) == true)
        #expect(!state.admits(nowNs: Self.second * 100))
        #expect(state.requestStarted(nowNs: Self.second * 100) == false)
        #expect(!state.isHealthy)
    }

    @Test func aTrialThatSucceedsBringsItBack() {
        var state = outState()
        _ = state.requestStarted(nowNs: Self.second)
        #expect(state.requestSucceeded() == true)
        #expect(state == HealthState())
    }

    @Test func pausesDoubleUpToTheirLimit() {
        var state = outState()
        var now: UInt64 = 0
        let pauses = (0..<7).map { _ in pauseAfterFailedTrial(&state, nowNs: &now) }
        #expect(pauses == [2, 4, 8, 16, 30, 30, 30].map { $0 * Self.second })
    }

    @Test func afterASuccessPausesAreShortAgain() {
        var state = outState()
        var now: UInt64 = 0
        for _ in 0..<4 { _ = pauseAfterFailedTrial(&state, nowNs: &now) }
        now = state.retryAtNs ?? 0
        _ = state.requestStarted(nowNs: now)
        _ = state.requestSucceeded()
        for _ in 0..<3 { _ = state.requestFailed(nowNs: now, wasTrial: false) }
        #expect(state.retryAtNs == now + Self.second)
    }

    @Test func anOlderRequestThatFailsDuringATrialDoesNotDecideIt() {
        var state = outState()
        _ = state.requestStarted(nowNs: Self.second)
        #expect(state.requestFailed(nowNs: Self.second + 1, wasTrial: false) == false)
        #expect(state.requestSucceeded() == true)
        #expect(state.isHealthy)
    }

    @Test func anAbandonedTrialIsFollowedByAnotherAtOnce() {
        var state = outState()
        _ = state.requestStarted(nowNs: Self.second)
        state.trialAbandoned(nowNs: Self.second + 9)
        #expect(!state.isHealthy)
        #expect(state.admits(nowNs: Self.second + 9))
        #expect(state.requestStarted(nowNs: Self.second + 9) == true)
    }

    @Test func nothingToAbandonChangesNothing() {
        var healthy = HealthState()
        healthy.trialAbandoned(nowNs: 1)
        #expect(healthy == HealthState())
        var out = outState()
        out.trialAbandoned(nowNs: 1)
        #expect(out == outState())
    }

    @Test func aHealthyBackendHasNoTrials() {
        var state = HealthState()
        #expect(state.requestStarted(nowNs: 0) == false)
        #expect(state == HealthState())
    }

    @Test func theNumbersAreThePolicys() {
        let policy = HealthState.Policy(failuresMax: 1, pauseNsMin: 10, pauseNsMax: 15)
        var state = HealthState(policy)
        #expect(state.requestFailed(nowNs: 0, wasTrial: false) == true)
        #expect(state.retryAtNs == 10)
        var now: UInt64 = 0
        #expect(pauseAfterFailedTrial(&state, nowNs: &now) == 15)
    }
}
