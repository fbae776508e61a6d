import Testing

@testable import Worker

@Suite struct ExchangeTests {
    /// Objects are reused: nothing of one request may be left for the next.
    @Test func aResetExchangeIsLikeANewOne() {
        let used = Exchange()
        used.phase = .finished
        used.head.method = .post
        used.retained = ByteBuffer(capacity: 4)
        used.wholeBodyBytes = 9
        used.requestRelay = BodyRelay(.chunked, writesChunks: true)
        used.isRequestAbandoned = true
        used.isRequestBlocked = true
        used.response.status = 200
        used.responseRelay = BodyRelay(.untilClose, writesChunks: true)
        used.isResponseBlocked = true
        used.mustClose = true
        used.statusSent = 200
        used.localBodyBytes = 3
        used.attempt.endpoint = 1
        used.pastAttempts = [AttemptRecord()]
        used.attemptCount = 2
        used.unreachable = [1]
        used.retryDenied = (.connectFailed, .attemptsExhausted, 7)
        (used.startedNs, used.startedUnixNs, used.streamingStartNs, used.endedNs) = (1, 2, 3, 4)
        used.error = .clientClosed
        used.hadBodyError = true
        used.identity.flags = 1
        used.userAgent = 1..<2
        used.traceState = [1]
        used.downstream = DownstreamConnection(descriptor: -1, slot: 0, generation: 0, peer: TracerStage.peer)
        used.reset()
        #expect(Self.facts(used) == Self.facts(Exchange()))
    }

    /// Every stored property by its name, so that one which is added later is looked at too.
    private static func facts(_ exchange: Exchange) -> [String] {
        Mirror(reflecting: exchange).children.map { "\($0.label ?? "?"): \($0.value)" }
    }

    @Test func theRequestsBodyIsCountedByItsFraming() {
        let exchange = Exchange()
        #expect(exchange.requestBodyBytes == nil)
        exchange.head.framing = .length(7)
        #expect(exchange.requestBodyBytes == 7)
        exchange.head.framing = .chunked
        #expect(exchange.requestBodyBytes == 0)
    }

    @Test func aWholeBodyOrAnEndedRelayIsAReadRequest() {
        let exchange = Exchange()
        exchange.requestRelay = BodyRelay(.length(3), writesChunks: false)
        #expect(!exchange.isRequestRead)
        exchange.wholeBodyBytes = 3
        #expect(exchange.isRequestRead)
        exchange.wholeBodyBytes = -1
        exchange.requestRelay = BodyRelay(.none, writesChunks: false)
        #expect(exchange.isRequestRead)
    }
}
