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
        used.wholeDataBytes = 5
        used.interimCount = 1
        used.isRequestAbandoned = true
        used.isRequestBlocked = true
        used.response.status = 200
        used.isResponseBlocked = true
        used.mustClose = true
        used.statusSent = 200
        used.localBodyBytes = 3
        used.attempt.endpoint = 1
        used.keepAttempt()
        used.attemptCount = 2
        used.connectFailed(endpoint: 1)
        (used.finishedClient, used.finishedBackend) = (true, true)
        used.retryDenied = (.connectFailed, .attemptsExhausted, 7)
        (used.startedNs, used.startedUnixNs, used.streamingStartNs, used.endedNs) = (1, 2, 3, 4)
        used.error = .clientClosed
        used.hadBodyError = true
        used.identity.flags = 1
        used.userAgent = 1..<2
        used.keepTraceState([1])
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
        (exchange.wholeBodyBytes, exchange.wholeDataBytes) = (20, 9)
        #expect(exchange.requestBodyBytes == 9, "framing is no content")
    }

    @Test func aWholeBodyOrAnEndedRelayIsAReadRequest() {
        let exchange = Exchange()
        exchange.requestRelay.restart(.length(3), writesChunks: false)
        #expect(!exchange.isRequestRead)
        exchange.wholeBodyBytes = 3
        #expect(exchange.isRequestRead)
        exchange.wholeBodyBytes = -1
        exchange.requestRelay.restart(.none, writesChunks: false)
        #expect(exchange.isRequestRead)
    }
}
