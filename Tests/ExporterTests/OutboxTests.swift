import Testing

@testable import Exporter

@Suite struct OutboxTests {
    private func parcel(_ id: UInt64) -> Outbox.Parcel {
        var out = ByteWriter()
        return Outbox.Parcel(id: id, body: out.take(replacement: ByteStorage()), spans: 7, trees: 1)
    }

    @Test func noMoreBatchesThanItsCapacity() {
        var outbox = Outbox(capacity: 2)
        outbox.add(parcel(1))
        #expect(outbox.hasRoom)
        outbox.add(parcel(2))
        #expect(!outbox.hasRoom)
        #expect(outbox.nextPost(nowNs: 0)?.parcel.id == 1)
        #expect(!outbox.hasRoom)
        #expect(outbox.settled(slot: 0).id == 1)
        #expect(outbox.hasRoom)
    }

    @Test func theOldestGoesFirstAlsoTheSecondTime() {
        var outbox = Outbox(capacity: 3)
        for id in 1...3 as ClosedRange<UInt64> { outbox.add(parcel(id)) }
        #expect(outbox.nextPost(nowNs: 5)?.parcel.id == 1)
        #expect(outbox.nextPost(nowNs: 6)?.parcel.id == 2)
        #expect(outbox.failed(slot: 1) == 6)
        #expect(outbox.failed(slot: 0) == 5)
        #expect(outbox.nextPost(nowNs: 7)?.parcel.id == 1)
        #expect(outbox.nextPost(nowNs: 7)?.parcel.id == 2)
        #expect(outbox.nextPost(nowNs: 7)?.parcel.id == 3)
        #expect(outbox.nextPost(nowNs: 7) == nil)
    }

    @Test func whatIsUnsettledIsCounted() {
        var outbox = Outbox(capacity: 2)
        outbox.add(parcel(1))
        outbox.add(parcel(2))
        _ = outbox.nextPost(nowNs: 0)
        #expect(outbox.unsettled.spans == 14)
        #expect(outbox.unsettled.trees == 2)
        #expect(!outbox.isEmpty)
    }
}
