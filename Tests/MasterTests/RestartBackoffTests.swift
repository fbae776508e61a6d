import Testing

@testable import Master

@Suite struct RestartBackoffTests {
    @Test func delaysDoubleUpToTenSeconds() {
        var backoff = RestartBackoff()
        let delaysMs = (0..<11).map { _ in backoff.childDied(healthNs: 0) / 1_000_000 }
        #expect(delaysMs == [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000])
    }

    @Test func tenHealthySecondsEarnAFreshStart() {
        var backoff = RestartBackoff()
        for _ in 0..<5 { _ = backoff.childDied(healthNs: 0) }
        #expect(backoff.childDied(healthNs: RestartBackoff.healthyNs - 1) > 0)
        #expect(backoff.childDied(healthNs: RestartBackoff.healthyNs) == 0)
        #expect(backoff.childDied(healthNs: 0) == RestartBackoff.delayNsMin)
    }

    @Test func manyDeathsDoNotOverflow() {
        var backoff = RestartBackoff()
        for _ in 0..<10_000 { _ = backoff.childDied(healthNs: 0) }
        #expect(backoff.childDied(healthNs: 0) == RestartBackoff.delayNsMax)
    }
}
