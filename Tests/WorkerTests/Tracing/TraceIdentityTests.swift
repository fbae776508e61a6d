import Testing

@testable import Worker

@Suite struct TraceIdentityTests {
    private let context = TraceContext(traceIDHigh: 1, traceIDLow: 2, parentSpanID: 3, flags: 0x01)

    @Test func theCallersTraceGoesOn() {
        var random = IDGenerator(seed: 1)
        let identity = TraceIdentity(context: context, &random)
        #expect((identity.traceIDHigh, identity.traceIDLow, identity.parentSpanID) == (1, 2, 3))
        #expect(identity.flags == 0x01, "we did not make the id, so we do not say it is random")
        #expect(identity.keepsTraceState)
        #expect(identity.isSampled)
        #expect(identity.rootSpanID != 0)
        #expect(identity.rootSpanID != 3)
    }

    @Test func theCallersWishNotToBeSampledIsRespected() {
        var random = IDGenerator(seed: 1)
        let unsampled = TraceContext(traceIDHigh: 1, traceIDLow: 2, parentSpanID: 3, flags: 0x02)
        let identity = TraceIdentity(context: unsampled, &random)
        #expect(!identity.isSampled)
        #expect(identity.flags == 0x02)
    }

    @Test func withoutACallerATraceBegins() {
        var random = IDGenerator(seed: 1)
        let identity = TraceIdentity(context: nil, &random)
        #expect(identity.parentSpanID == 0)
        #expect(identity.flags == 0x03, "sampled, and made by chance")
        #expect(!identity.keepsTraceState)
        #expect(identity.traceIDLow != 0)
    }

    @Test func everyRequestHasIdsOfItsOwn() {
        var random = IDGenerator(seed: 1)
        let identities = (0..<500).map { _ in TraceIdentity(context: nil, &random) }
        #expect(Set(identities.map(\.rootSpanID)).count == 500)
        #expect(Set(identities.map { [$0.traceIDHigh, $0.traceIDLow] }).count == 500)
    }

    @Test func anEmptyIdentityIsNotSampled() {
        #expect(!TraceIdentity().isSampled)
    }
}
