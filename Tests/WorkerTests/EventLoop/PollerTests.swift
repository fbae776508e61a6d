import Testing

@testable import Worker

@Suite struct EventTokenTests {
    private static let kinds: [EventToken.Kind] = [.listener, .control, .signal, .downstream, .upstream]

    @Test func aTokenComesBackAsItWentOut() {
        for kind in Self.kinds {
            for slot in [0, 1, 65_536, Int(UInt32.max)] {
                for generation: UInt32 in [0, 1, 0x80_0000, 0xFF_FFFF] {
                    let token = EventToken(kind: kind, slot: slot, generation: generation)
                    #expect(EventToken(bits: token.bits) == token)
                }
            }
        }
    }

    @Test func eachPartHasItsOwnBits() {
        #expect(EventToken(kind: .upstream, slot: 0x1234_5678, generation: 0xAB_CDEF).bits == 0x04AB_CDEF_1234_5678)
    }

    @Test func aGenerationIsKnownByItsLower24Bits() {
        let token = EventToken(kind: .downstream, slot: 3, generation: 0x0700_0001)
        #expect(token.generation == 1)
        #expect(EventToken(bits: token.bits) == token)
    }

    @Test func otherGenerationsOfAPlaceAreOtherTokens() {
        let first = EventToken(kind: .upstream, slot: 9, generation: 1)
        #expect(first != EventToken(kind: .upstream, slot: 9, generation: 2))
        #expect(first.bits != EventToken(kind: .upstream, slot: 9, generation: 2).bits)
    }

    @Test func bitsOfAnUnknownKindAreNoToken() {
        #expect(EventToken(bits: 0x4000_0000_0000_0000) == nil)
        #expect(EventToken(bits: .max) == nil)
    }
}

@Suite struct PollerTests {
    @Test func aNewConnectionIsWritableOnly() throws {
        let (poller, peer) = try watched()
        let writable = Readiness(
            isReadable: false, isWritable: true, peerFinished: false, isBroken: false, hasError: false)
        #expect(events(poller) == [writable])
        withExtendedLifetime(peer) {}
    }

    @Test func anEdgeIsToldOnce() throws {
        let (poller, peer) = try watched()
        peer.send("x")
        #expect(events(poller).map(\.isReadable) == [true])
        #expect(events(poller).isEmpty)
        peer.send("y")
        #expect(events(poller).map(\.isReadable) == [true])
    }

    @Test func theEndOfThePeersBytesIsTold() throws {
        let (poller, peer) = try watched()
        peer.finish()
        let told = try #require(events(poller).first)
        #expect(told.peerFinished)
        #expect(!told.isBroken)
    }

    @Test func aPeerThatIsGoneBreaksTheConnection() throws {
        let (poller, peer) = try watched()
        peer.close()
        let told = try #require(events(poller).first)
        #expect(told.isBroken)
        #expect(!told.hasError, "it ended in order")
        #expect(told.isReadable, "a read must find out what happened")
    }

    @Test func theTokenIsTheOneOfTheRegistration() throws {
        let poller = try Poller()
        let peer = ScriptedPeer()
        let token = EventToken(kind: .downstream, slot: 77, generation: 5)
        try poller.addConnection(peer.connection.descriptor, token: token)
        #expect(poller.wait(timeoutMs: 0) == 1)
        #expect(poller.event(at: 0)?.token == token)
    }

    @Test func aListenerIsToldAsLongAsSomethingWaits() throws {
        let poller = try Poller()
        let peer = ScriptedPeer()
        try poller.addReadable(peer.connection.descriptor, token: EventToken(kind: .listener, slot: 0))
        #expect(events(poller).isEmpty)
        peer.send("x")
        #expect(events(poller).count == 1)
        #expect(events(poller).count == 1)
        poller.remove(peer.connection.descriptor)
        #expect(events(poller).isEmpty)
    }

    private func watched() throws -> (Poller, ScriptedPeer) {
        let poller = try Poller()
        let peer = ScriptedPeer()
        try poller.addConnection(peer.connection.descriptor, token: EventToken(kind: .upstream, slot: 0))
        return (poller, peer)
    }

    private func events(_ poller: Poller) -> [Readiness] {
        (0..<poller.wait(timeoutMs: 0)).compactMap { poller.event(at: $0)?.readiness }
    }
}
