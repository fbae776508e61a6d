import Testing

@testable import Worker

@Suite struct RetryPolicyTests {
    private static let methods: [Method] = [
        .get, .head, .post, .put, .delete, .connect, .options, .trace, .patch, .other,
    ]
    /// RFC 9110 §9.2.2, by hand.
    private static let idempotent: [Method] = [.get, .head, .put, .delete, .options, .trace]

    /// Every combination of the facts.
    private static let attempts: [RetryPolicy.Attempt] = {
        let flags = [false, true]
        var all: [RetryPolicy.Attempt] = []
        for method in methods {
            for bits in 0..<32 {
                for (number, bytes) in [(1, 0), (1, 80), (2, 0), (2, 80), (3, 0), (3, 80), (4, 80)] {
                    all.append(
                        RetryPolicy.Attempt(
                            method: method, number: number, isConnectFailure: flags[bits & 1],
                            wasReused: flags[bits >> 1 & 1], connectionEnded: flags[bits >> 2 & 1], bytesSent: bytes,
                            isBodyReplayable: flags[bits >> 3 & 1], responseStarted: flags[bits >> 4 & 1]))
                }
            }
        }
        return all
    }()

    /// The rules as sentences: what another attempt needs, each with the denial that its absence gives.
    private func expected(_ attempt: RetryPolicy.Attempt, attemptsMax: Int) -> RetryPolicy.Verdict {
        let reason: RetryPolicy.Reason
        switch (attempt.isConnectFailure, attempt.wasReused && attempt.connectionEnded) {
        case (true, _): reason = .connectFailed
        case (false, true): reason = .connectionClosedBeforeResponse
        case (false, false): return .final
        }
        let mayBeRepeated = Self.idempotent.contains(attempt.method)
        let neverSeen = attempt.isConnectFailure || attempt.bytesSent == 0
        let needs: [(Bool, RetryPolicy.Denial)] = [
            (!attempt.responseStarted, .responseStarted), (neverSeen || mayBeRepeated, .notIdempotent),
            (attempt.isBodyReplayable, .bodyNotReplayable), (attempt.number < attemptsMax, .attemptsExhausted),
        ]
        return needs.first { !$0.0 }.map { .denied(reason, $0.1) } ?? .retry(reason)
    }

    @Test(arguments: [1, 2, 3])
    func everyCombinationIsDecidedByTheRules(attemptsMax: Int) {
        let policy = RetryPolicy(attemptsMax: attemptsMax)
        for attempt in Self.attempts {
            #expect(policy.verdict(attempt) == expected(attempt, attemptsMax: attemptsMax), "\(attempt)")
        }
    }

    @Test func aRefusedConnectionIsTriedElsewhereWhateverTheMethod() {
        for method in Self.methods {
            let attempt = RetryPolicy.Attempt(method: method, isConnectFailure: true)
            #expect(RetryPolicy().verdict(attempt) == .retry(.connectFailed))
        }
    }

    @Test func aStaleConnectionIsTriedAgainForAGet() {
        let attempt = RetryPolicy.Attempt(wasReused: true, connectionEnded: true, bytesSent: 120)
        #expect(RetryPolicy().verdict(attempt) == .retry(.connectionClosedBeforeResponse))
    }

    @Test func aPostThatMayHaveArrivedIsNotSentTwice() {
        let attempt = RetryPolicy.Attempt(method: .post, wasReused: true, connectionEnded: true, bytesSent: 1)
        #expect(RetryPolicy().verdict(attempt) == .denied(.connectionClosedBeforeResponse, .notIdempotent))
    }

    @Test func aPostOfWhichNothingWasSentIsTriedAgain() {
        let attempt = RetryPolicy.Attempt(method: .post, wasReused: true, connectionEnded: true, bytesSent: 0)
        #expect(RetryPolicy().verdict(attempt) == .retry(.connectionClosedBeforeResponse))
    }

    @Test func aFreshConnectionThatEndsIsNoMatterForAnotherAttempt() {
        #expect(RetryPolicy().verdict(RetryPolicy.Attempt(connectionEnded: true, bytesSent: 9)) == .final)
    }

    @Test func aTimeoutOnAReusedConnectionIsFinal() {
        #expect(RetryPolicy().verdict(RetryPolicy.Attempt(wasReused: true, bytesSent: 9)) == .final)
    }

    /// Only such an end says nothing about the backend's health.
    @Test func aStaleConnectionIsAKeptOneThatEndedBeforeAnyResponse() {
        for attempt in Self.attempts {
            let isStale =
                attempt.wasReused && attempt.connectionEnded && !attempt.isConnectFailure && !attempt.responseStarted
            #expect(attempt.isStaleConnection == isStale, "\(attempt)")
        }
    }

    @Test func theTextsAreTheOnesOfTheTraces() {
        #expect("\(RetryPolicy.Reason.connectFailed.text)" == "connect_failed")
        let closed = RetryPolicy.Reason.connectionClosedBeforeResponse
        #expect("\(closed.text)" == "connection_closed_before_response")
        let denials: [RetryPolicy.Denial] = [.bodyNotReplayable, .notIdempotent, .attemptsExhausted, .responseStarted]
        #expect(
            denials.map { "\($0.text)" } == [
                "body_not_replayable", "not_idempotent", "attempts_exhausted", "response_started",
            ])
    }
}
