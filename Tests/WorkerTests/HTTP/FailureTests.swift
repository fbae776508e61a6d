import Testing

@testable import Worker

@Suite struct FailureTests {
    private static let all = (0...UInt8.max).compactMap(ErrorType.init(rawValue:))

    @Test func everyErrorHasATextOfItsOwn() {
        let texts = Self.all.map { "\($0.text)" }
        #expect(Set(texts).count == Self.all.count)
        #expect(Self.all.count == 25)
    }

    @Test func everyErrorHasASentenceOfItsOwn() {
        #expect(Set(Self.all.map { "\($0.sentence)" }).count == Self.all.count)
    }

    /// `error.type` is grouped by, so it is one lower-case word.
    @Test func textsAreWordsToGroupBy() {
        for error in Self.all {
            let isPlain = "\(error.text)".utf8.allSatisfy { $0 == UInt8(ascii: "_") || (0x61...0x7A).contains($0) }
            #expect(isPlain, "\(error.text)")
        }
    }

    @Test(
        arguments: [
            (.connectRefused, 502), (.connectFailed, 502), (.upstreamReset, 502), (.upstreamClosed, 502),
            (.upstreamProtocolError, 502), (.connectTimeout, 504), (.upstreamTimeout, 504), (.noHealthyBackend, 503),
            (.poolQueueFull, 503), (.poolQueueTimeout, 503), (.resourceExhausted, 503), (.drainTimeout, 503),
            (.clientClosed, nil), (.clientTimeout, 408), (.requestTimeout, 408), (.protocolError, 400),
            (.uriTooLong, 414), (.headTooLarge, 431), (.bodyTooLarge, 413), (.unknownTransferCoding, 501),
            (.unsupportedVersion, 505), (.methodNotAllowed, 405), (.tlsFailure, 502), (.plainHTTPOnTLSPort, 400),
        ] as [(ErrorType, Int?)])
    func theClientIsToldTheRightStatus(error: ErrorType, status: Int?) {
        #expect(error.status == status)
    }

    @Test(
        arguments: [
            (.malformed, 400), (.ambiguousFraming, 400), (.targetTooLong, 414), (.headTooLarge, 431),
            (.tooManyFields, 431),
            (.unknownTransferCoding, 501), (.unsupportedVersion, 505), (.methodNotAllowed, 405),
        ] as [(RequestRefusal, Int)])
    func everyRefusalHasItsStatus(refusal: RequestRefusal, status: Int) {
        #expect(refusal.errorType.status == status)
    }

    /// What a client or this proxy did must never take a backend out.
    @Test func onlyFailuresToConnectOrToAnswerCountAgainstABackend() {
        #expect(
            Self.all.filter(\.countsAgainstBackend) == [
                .connectRefused, .connectTimeout, .connectFailed, .tlsFailure, .upstreamTimeout, .upstreamReset,
                .upstreamClosed,
            ])
    }

    @Test func everyStatusThatIsSentHasAReasonPhrase() {
        for status in Set(Self.all.compactMap(\.status)) { #expect("\(reasonPhrase(status))" != "Error", "\(status)") }
        #expect("\(reasonPhrase(502))" == "Bad Gateway")
    }
}
