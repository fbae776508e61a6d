import Testing

@testable import Worker

@Suite struct HTTP2PatienceTests {
    private static let second: UInt64 = 1_000_000_000

    @Test func timeFillsTheAccounts() {
        var patience = HTTP2Patience()
        patience.received(HTTP2Patience.bytesMax, nowNs: 1)
        for _ in 0..<HTTP2Patience.streamsMax { patience.streamSpoiled() }
        let isEmpty = patience
        patience.received(1000, nowNs: 2)
        let lasts1 = patience.lasts()
        #expect(!lasts1)
        patience = isEmpty
        patience.received(HTTP2Patience.bytesPerSecond * 9 / 10, nowNs: 1 + Self.second)
        for _ in 0..<30 { patience.streamSpoiled() }
        let lasts2 = patience.lasts()
        #expect(lasts2)
    }

    @Test func shortTurnsFillThemToo() {
        var patience = HTTP2Patience()
        for _ in 0..<HTTP2Patience.streamsMax { patience.streamSpoiled() }
        for turn in 1...2000 { patience.received(0, nowNs: UInt64(turn) * 1_000_000) }
        for _ in 0..<60 { patience.streamSpoiled() }
        let lasts3 = patience.lasts()
        #expect(lasts3)
    }

    @Test func usefulFramesCostNothing() {
        var patience = HTTP2Patience()
        for _ in 0..<100_000 {
            patience.received(10, nowNs: 1)
            patience.dataArrived(1)
            patience.dataFrameEnded()
        }
        let lasts4 = patience.lasts()
        #expect(lasts4)
    }

    @Test func whatWasOnItsWayIsForgiven() {
        var patience = HTTP2Patience()
        patience.received(HTTP2Patience.bytesMax, nowNs: 1)
        patience.expectLate(100_000)
        patience.received(100_000, nowNs: 1)
        let lasts5 = patience.lasts()
        #expect(lasts5)
        patience.received(1, nowNs: 1)
        let lasts6 = patience.lasts()
        #expect(!lasts6)
        #expect(patience.exhausted == .emptyFrames)
    }

    @Test func windowUpdatesForSmallDataArePaidFor() {
        var patience = HTTP2Patience()
        for _ in 0..<100_000 {
            patience.dataSent(10)
            patience.received(26, nowNs: 1)
        }
        let lasts = patience.lasts()
        #expect(lasts)
    }

    @Test func aWholeConnectionsWindowMayBeLate() {
        var patience = HTTP2Patience()
        for _ in 0..<64 { patience.expectLate(256 * 1024) }
        patience.received(16 * 1024 * 1024, nowNs: 1)
        let lasts = patience.lasts()
        #expect(lasts)
    }

    @Test func whoTakesWhatWaitsIsNoHoarder() {
        var patience = HTTP2Patience()
        patience.received(1, nowNs: Self.second)
        patience.dataSent(10 << 20)
        let takes = !patience.isHoarding(8 << 20, nowNs: Self.second)
        #expect(takes)
        let stops = patience.isHoarding(8 << 20, nowNs: 4 * Self.second)
        #expect(stops)
    }

    /// Who is looked at often, or sends often, is not remembered for longer.
    @Test(arguments: [UInt64(10_000_000), 40_000_000, 400_000_000])
    func whatMovedIsForgottenHoweverOftenOneLooks(stepNs: UInt64) {
        var patience = HTTP2Patience()
        patience.received(1, nowNs: Self.second)
        patience.dataSent(10 << 20)
        for index in 0..<(4 * Self.second / stepNs) { patience.received(1, nowNs: Self.second + index * stepNs) }
        let stops = patience.isHoarding(2 << 20, nowNs: 5 * Self.second)
        #expect(stops)
        for index in 0..<(30 * Self.second / stepNs) {
            _ = patience.isHoarding(1, nowNs: 5 * Self.second + index * stepNs)
        }
        #expect(patience.isStill)
    }

    @Test func unservedRequestsAreToldOfAtAPace() {
        var unserved = UnservedRequests()
        let burst = (0..<1000).filter { _ in unserved.admits(nowNs: Self.second) }.count
        #expect(burst == UnservedRequests.burst)
        let later = (0..<1000).filter { _ in unserved.admits(nowNs: 2 * Self.second) }.count
        #expect(later == UnservedRequests.perSecond)
    }
}
