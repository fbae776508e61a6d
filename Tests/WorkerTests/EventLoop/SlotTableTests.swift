import Testing

@testable import Worker

@Suite struct SlotTableTests {
    private final class Guest {
        let slot: Int
        let generation: UInt32

        init(slot: Int, generation: UInt32) {
            self.slot = slot
            self.generation = generation
        }
    }

    private func insert(_ table: SlotTable<Guest>) -> Guest? {
        table.insert { Guest(slot: $0, generation: $1) }
    }

    @Test func aGuestIsFoundByPlaceAndGeneration() throws {
        let table = SlotTable<Guest>(capacity: 4)
        let guest = try #require(insert(table))
        #expect(table.occupant(guest.slot, generation: guest.generation) === guest)
        #expect(table.occupant(guest.slot) === guest)
        #expect(table.count == 1)
    }

    @Test func whoLeftIsNotFound() throws {
        let table = SlotTable<Guest>(capacity: 4)
        let guest = try #require(insert(table))
        table.remove(guest.slot)
        #expect(table.occupant(guest.slot, generation: guest.generation) == nil)
        #expect(table.occupant(guest.slot) == nil)
        #expect(table.count == 0)
    }

    @Test func anOldGenerationDoesNotReachTheNextGuest() throws {
        let table = SlotTable<Guest>(capacity: 1)
        let first = try #require(insert(table))
        table.remove(first.slot)
        let second = try #require(insert(table))
        #expect(second.slot == first.slot)
        #expect(table.occupant(first.slot, generation: first.generation) == nil)
        #expect(table.occupant(second.slot, generation: second.generation) === second)
    }

    @Test func aFullTableTakesNobody() throws {
        let table = SlotTable<Guest>(capacity: 2)
        let first = try #require(insert(table))
        _ = insert(table)
        #expect(table.isFull)
        #expect(insert(table) == nil)
        table.remove(first.slot)
        #expect(!table.isFull)
        #expect(insert(table) != nil)
    }

    @Test func leavingTwiceFreesThePlaceOnce() throws {
        let table = SlotTable<Guest>(capacity: 2)
        let guest = try #require(insert(table))
        table.remove(guest.slot)
        table.remove(guest.slot)
        let slots = [insert(table), insert(table)].compactMap(\.?.slot)
        #expect(Set(slots) == [0, 1])
        #expect(table.count == 2)
    }

    @Test func aPlaceThatNeverWasHasNoOccupant() {
        let table = SlotTable<Guest>(capacity: 2)
        #expect(table.occupant(1, generation: 0) == nil)
        #expect(table.occupant(1) == nil)
    }

    @Test func everybodyIsListedInTheOrderOfPlaces() throws {
        let table = SlotTable<Guest>(capacity: 4)
        for _ in 0..<4 { _ = insert(table) }
        table.remove(2)
        #expect(table.occupants.map(\.slot) == [0, 1, 3])
    }

    @Test(arguments: 0..<10 as Range<UInt64>)
    func staleReferencesNeverHit(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let table = SlotTable<Guest>(capacity: 5)
        var present: [Guest] = []
        var gone: [(slot: Int, generation: UInt32)] = []
        for _ in 0..<300 {
            if Bool.random(using: &random), let guest = insert(table) {
                present.append(guest)
            } else if let guest = present.randomElement(using: &random) {
                table.remove(guest.slot)
                present.removeAll { $0 === guest }
                gone.append((guest.slot, guest.generation))
            }
            #expect(table.count == present.count)
            #expect(present.allSatisfy { table.occupant($0.slot, generation: $0.generation) === $0 })
            #expect(gone.allSatisfy { table.occupant($0.slot, generation: $0.generation) == nil })
        }
    }
}
