import Testing

@testable import Worker

@Suite struct TicketKeysTests {
    private static let epoch = TicketKeys.epochSeconds

    private func keys(atEpoch epoch: UInt64) -> TicketKeys {
        unsafe TicketKeys(nowSeconds: epoch * Self.epoch) {
            unsafe $0.update(repeating: 7)
            return true
        }
    }

    private func name(_ keys: TicketKeys) -> [UInt8] {
        unsafe Array(UnsafeRawBufferPointer(start: keys.current, count: 16))
    }

    private func knows(_ keys: TicketKeys, _ name: [UInt8]) -> Bool? {
        unsafe name.withUnsafeBytes { unsafe keys.keys(named: $0)?.isOld }
    }

    @Test func processesArriveAtTheSameKeysWhateverTheirSteps() {
        let (steady, late) = (keys(atEpoch: 10), keys(atEpoch: 10))
        for epoch in 11...15 { steady.advance(nowSeconds: UInt64(epoch) * Self.epoch) }
        late.advance(nowSeconds: 15 * Self.epoch + 5)
        #expect(name(steady) == name(late))
        #expect(knows(late, name(steady)) == false)
    }

    @Test func theEpochBeforeIsStillKnownAndNoOther() {
        let tickets = keys(atEpoch: 10)
        let first = name(tickets)
        #expect(knows(tickets, first) == false)
        tickets.advance(nowSeconds: 11 * Self.epoch)
        #expect(knows(tickets, first) == true, "old: to be replaced")
        #expect(name(tickets) != first)
        tickets.advance(nowSeconds: 12 * Self.epoch)
        #expect(knows(tickets, first) == nil)
    }

    @Test func aClockThatGoesBackChangesNothing() {
        let tickets = keys(atEpoch: 10)
        let first = name(tickets)
        tickets.advance(nowSeconds: 9 * Self.epoch)
        #expect(name(tickets) == first)
    }

    @Test func anotherImageGoesOnWithTheSameKeys() {
        let (old, new) = (TicketKeys(), TicketKeys())
        new.adopt(old.exported)
        #expect(name(new) == name(old))
        new.adopt([1, 2, 3])
        #expect(name(new) == name(old), "nonsense is left alone")
    }

    @Test(arguments: 0...3)
    func ticketsOfTheEpochBeforeSurviveAnotherImage(epochsInOldImage: UInt64) {
        let old = keys(atEpoch: 10)
        var names = [name(old)]
        for epoch in 0..<epochsInOldImage {
            old.advance(nowSeconds: (11 + epoch) * Self.epoch)
            names.append(name(old))
        }
        let new = TicketKeys()
        new.adopt(old.exported, nowSeconds: (10 + epochsInOldImage) * Self.epoch + 7)
        #expect(knows(new, names.removeLast()) == false)
        if let before = names.popLast() { #expect(knows(new, before) == true) }
        if let olderStill = names.popLast() { #expect(knows(new, olderStill) == nil) }
    }

    @Test func workersForkedDaysApartAgree() {
        let master = keys(atEpoch: 10)
        let early = keys(atEpoch: 10)
        master.advance(nowSeconds: 16 * Self.epoch)
        let late = keys(atEpoch: 0)
        late.adopt(master.exported, nowSeconds: 17 * Self.epoch)
        early.advance(nowSeconds: 17 * Self.epoch)
        #expect(name(late) == name(early))
        master.advance(nowSeconds: 17 * Self.epoch)
        #expect(name(master) == name(early))
        #expect(master.exported == late.exported && late.exported == early.exported)
    }

    @Test func everySecretIsAnother() {
        #expect(name(TicketKeys()) != name(TicketKeys()))
    }
}
