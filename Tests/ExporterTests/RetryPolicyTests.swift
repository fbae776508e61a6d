import Testing

@testable import Exporter

@Suite struct RetryPolicyTests {
    @Test(arguments: [
        (200, DeliveryVerdict.delivered), (202, .delivered), (204, .delivered), (301, .drop), (400, .drop),
        (401, .drop), (403, .drop), (404, .drop), (413, .drop), (429, .retry), (500, .drop), (501, .drop),
        (502, .retry), (503, .retry), (504, .retry), (0, .drop),
    ])
    func statusDecides(status: Int, verdict: DeliveryVerdict) {
        #expect(DeliveryVerdict(status: status) == verdict)
    }

    /// The largest pause after the n-th failure in a row, in milliseconds.
    @Test(arguments: [(1, 500), (2, 1_000), (3, 2_000), (4, 4_000), (5, 8_000), (6, 10_000), (60, 10_000)])
    func pausesDoubleUpToALimit(failures: Int, ceilingMs: UInt64) {
        #expect(pauseNs(failures: failures, random: .max) == ceilingMs * 1_000_000 - 1)
    }

    @Test func jitterSpansTheWholePauseButNeverNothing() {
        #expect(pauseNs(failures: 4, random: 1 << 63) == 2_000_000_000)
        #expect(pauseNs(failures: 4, random: 0) == RetryPolicy.minNs)
    }

    private func pauseNs(failures: Int, random: UInt64) -> UInt64 {
        var policy = RetryPolicy()
        var nowNs: UInt64 = 1_000
        for number in 1...failures {
            nowNs = max(nowNs, policy.closedUntilNs)
            policy.failed(startedNs: nowNs, nowNs: nowNs, retryAfterNs: 0, random: number == failures ? random : 0)
        }
        return policy.closedUntilNs - nowNs
    }

    @Test func onePostAtATimeProbesAfterAFailure() {
        var policy = RetryPolicy()
        #expect(policy.mayPost(nowNs: 0, postsInFlight: 3))
        policy.failed(startedNs: 0, nowNs: 10, retryAfterNs: 0, random: .max)
        let openNs = policy.closedUntilNs
        #expect(!policy.mayPost(nowNs: openNs - 1, postsInFlight: 0))
        #expect(!policy.mayPost(nowNs: openNs, postsInFlight: 1))
        #expect(policy.mayPost(nowNs: openNs, postsInFlight: 0))
        policy.succeeded()
        #expect(policy.mayPost(nowNs: 11, postsInFlight: 3))
    }

    @Test func postsThatFailTogetherAreOneFailure() {
        var policy = RetryPolicy()
        policy.failed(startedNs: 0, nowNs: 100, retryAfterNs: 0, random: .max)
        let openNs = policy.closedUntilNs
        for nowNs in [101, 102, 103] as [UInt64] {
            policy.failed(startedNs: 5, nowNs: nowNs, retryAfterNs: 0, random: .max)
        }
        #expect(policy.failures == 1)
        #expect(policy.closedUntilNs == openNs)
    }

    @Test func retryAfterIsHonouredWithinALimit() {
        var policy = RetryPolicy()
        policy.failed(startedNs: 0, nowNs: 0, retryAfterNs: 7_000_000_000, random: .max)
        #expect(policy.closedUntilNs == 7_000_000_000)
        policy.failed(startedNs: 7_000_000_000, nowNs: 7_000_000_000, retryAfterNs: .max, random: 0)
        #expect(policy.closedUntilNs == 7_000_000_000 + RetryPolicy.retryAfterMaxNs)
    }

    @Test func drainingTriesAtOnceAndPausesBriefly() {
        var policy = RetryPolicy()
        for step in 0..<6 as Range<UInt64> {
            policy.failed(
                startedNs: step * 20_000_000_000, nowNs: step * 20_000_000_000, retryAfterNs: 0, random: .max)
        }
        policy.drainBegan()
        #expect(policy.mayPost(nowNs: 100_000_000_001, postsInFlight: 0))
        policy.failed(startedNs: 200_000_000_000, nowNs: 200_000_000_000, retryAfterNs: 0, random: .max)
        #expect(policy.closedUntilNs - 200_000_000_000 < RetryPolicy.drainingMaxNs)
    }
}
