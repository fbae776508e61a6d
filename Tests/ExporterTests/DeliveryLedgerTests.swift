import Testing

@testable import Exporter

@Suite struct DeliveryLedgerTests {
    @Test func spaceIsReleasedInTheOrderOfTheRing() {
        var ledger = DeliveryLedger<Int>()
        let ids = [10, 20, 30].map { ledger.batchClosed([$0]) }
        #expect(ledger.batchSettled(ids[2]) == [nil])
        #expect(ledger.batchSettled(ids[0]) == [10])
        #expect(ledger.batchSettled(ids[1]) == [30])
        #expect(ledger.entryCount == 0)
    }

    @Test func aBatchHoldsUpOnlyTheRingsItHolds() {
        var ledger = DeliveryLedger<Int>()
        let stuck = ledger.batchClosed([10, nil])
        let both = ledger.batchClosed([20, 5])
        #expect(ledger.batchSettled(both) == [nil, 5])
        #expect(ledger.batchSettled(stuck) == [20, nil])
        #expect(ledger.entryCount == 0)
    }

    @Test func settledNeighboursAreOneEntry() {
        var ledger = DeliveryLedger<Int>()
        let stuck = ledger.batchClosed([1])
        for mark in 2...1000 {
            #expect(ledger.batchSettled(ledger.batchClosed([mark])) == [nil])
        }
        #expect(ledger.entryCount == 2)
        #expect(ledger.batchSettled(stuck) == [1000])
    }

    /// Any order of settling releases each ring's marks upwards, never past a batch in flight.
    @Test(arguments: [11, 12, 13] as [UInt64])
    func anyOrderOfDeliveryKeepsTheOrderOfRelease(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var ledger = DeliveryLedger<Int>()
        var open: [(id: UInt64, marks: [Int?])] = []
        var released = [0, 0, 0]
        for mark in 1...400 {
            let marks = (0..<3).map { _ in Bool.random(using: &random) ? mark : nil }
            open.append((ledger.batchClosed(marks), marks))
            guard open.count == 4 || mark > 396 else { continue }
            let settled = open.remove(at: Int.random(in: 0..<open.count, using: &random))
            for (ring, position) in ledger.batchSettled(settled.id).enumerated() {
                guard let position else { continue }
                #expect(position > released[ring], "seed \(seed)")
                #expect(open.allSatisfy { ($0.marks[ring] ?? .max) > position }, "seed \(seed)")
                released[ring] = position
            }
            #expect(ledger.entryCount <= 9, "seed \(seed)")
        }
    }
}
