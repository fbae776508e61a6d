import CShims
import Glibc
import Testing

@testable import ShmRing

// What a worker notes and what is read of it after its death. Unsafe: damages entries as a broken process could.

@Suite struct PostMortemTests {
    private let segment = SpanSegment.small(rings: 2)

    private func identity(_ number: UInt64) -> InflightTable.Identity {
        InflightTable.Identity(
            traceIDHigh: number, traceIDLow: ~number, spanID: number << 8, parentSpanID: 5, flags: 3,
            startUnixNs: 1000)
    }

    private func begin(_ table: InflightTable, _ number: UInt64, path: String = "/p") -> Int32 {
        let index = table.take()
        table.begin(
            index, identity(number), method: "GET".utf8.span, authority: "host:1".utf8.span, path: path.utf8.span)
        return index
    }

    /// A reader that a test can ask in the middle of an expression.
    private final class Reader {
        private var reader: PostMortemReader

        init(_ segment: SpanSegment) { reader = segment.postMortemReader() }

        func nextDeath() -> WorkerDeath? { reader.nextDeath() }
        func entryCount(of death: WorkerDeath) -> Int { reader.entryCount(of: death) }
        func take(_ index: Int, of death: WorkerDeath) -> InterruptedRequest? { reader.take(index, of: death) }
        func forget(_ index: Int, of death: WorkerDeath) { reader.forget(index, of: death) }
        func settle(_ death: WorkerDeath) { reader.settle(death) }

        /// What is told of a death, everything forgotten on the way.
        func tell(_ death: WorkerDeath) -> [InterruptedRequest] {
            var told: [InterruptedRequest] = []
            for index in 0..<reader.entryCount(of: death) {
                if let request = reader.take(index, of: death) { told.append(request) }
                reader.forget(index, of: death)
            }
            return told
        }
    }

    @Test func aRequestIsReadAsItWasNoted() throws {
        let table = segment.inflightTable(slot: 1, incarnation: 6)
        let index = begin(table, 7, path: "/a/b")
        table.connecting(index, backend: 2, "b.test:80")
        table.attempt(index, spanID: 99, startNs: 40, backend: 2, "b.test:80")
        table.response(index, status: 200, startNs: 60, .streamingResponse)
        segment.noteDeath(slot: 1, incarnation: 6, signal: 11, unixNs: 5000)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        #expect(death.slot == 1 && death.incarnation == 6 && death.signal == 11 && death.unixNs == 5000)
        let request = try #require(reader.tell(death).first)
        #expect(request.traceID == (7, ~7))
        #expect(request.spanID == 7 << 8 && request.parentSpanID == 5 && request.traceFlags == 3)
        #expect(request.startUnixNs == 1000)
        #expect(request.lastPhase == .streamingResponse)
        #expect(request.method == Array("GET".utf8) && request.authority == Array("host:1".utf8))
        #expect(request.path == Array("/a/b".utf8))
        #expect(request.backend?.index == 2 && request.backend?.host == Array("b.test:80".utf8))
        #expect(request.attempt?.spanID == 99 && request.attempt?.startNs == 40)
        #expect(request.attempt?.response?.status == 200 && request.attempt?.response?.startNs == 60)
    }

    @Test func whereARequestStandsFollowsItsWay() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        let index = begin(table, 1)
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 5000)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        var phases: [InflightTable.Phase?] = []
        var attempts: [UInt64?] = []
        func look() { phases.append(reader.take(0, of: death)?.lastPhase) }
        look()
        table.connecting(index, backend: 0, "b")
        look()
        attempts.append(reader.take(0, of: death)?.attempt?.spanID)
        table.attempt(index, spanID: 3, startNs: 1, backend: 0, "b")
        look()
        table.connecting(index, backend: 1, "c")
        let retried = reader.take(0, of: death)
        attempts.append(retried?.attempt?.spanID)
        #expect(retried?.backend?.host == Array("c".utf8))
        table.response(index, status: 101, startNs: 2, .tunnel)
        look()
        table.moved(index, to: .answering)
        look()
        table.end(index)
        look()
        table.moved(index, to: .answering)
        look()
        #expect(phases == [.waitingForConnection, .connecting, .awaitingResponse, .tunnel, .answering, nil, nil])
        #expect(attempts == [nil, nil], "nothing has gone upstream in a new attempt")
    }

    @Test func whatIsForgottenOrSettledIsNotToldAgain() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        _ = begin(table, 1)
        _ = begin(table, 2)
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 5000)
        let first = Reader(segment)
        let death = try #require(first.nextDeath())
        let taken = first.take(0, of: death)
        #expect(taken != nil)
        first.forget(0, of: death)
        // The first reader dies here.
        let second = Reader(segment)
        #expect(second.nextDeath() == death)
        #expect(second.tell(death).map(\.spanID) == [2 << 8])
        second.settle(death)
        #expect(second.nextDeath() == nil)
        #expect(second.tell(death).isEmpty)
    }

    @Test func aTreeThatWasPublishedJustBeforeTheDeathIsNotToldTwice() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        var producer = segment.producer(slot: 0)
        NumberedTree.publish(50, to: &producer)
        let published = begin(table, 1)
        let unpublished = begin(table, 2)
        table.publishing(published, producer)
        NumberedTree.publish(51, to: &producer)
        table.publishing(unpublished, producer)
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 5000)
        // The successor's trees say nothing about it.
        var successor = segment.producer(slot: 0)
        NumberedTree.publish(52, to: &successor)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        #expect(reader.tell(death).map(\.spanID) == [2 << 8])
    }

    @Test func otherProcessesOfTheSlotAreLeftAlone() throws {
        let first = segment.inflightTable(slot: 0, incarnation: 0)
        _ = begin(first, 1)
        let second = segment.inflightTable(slot: 0, incarnation: 1)
        _ = begin(second, 2)
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 5000)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        #expect(reader.tell(death).map(\.spanID) == [1 << 8])
        reader.settle(death)
        segment.noteDeath(slot: 0, incarnation: 1, signal: 9, unixNs: 6000)
        let next = try #require(reader.nextDeath())
        #expect(reader.tell(next).map(\.spanID) == [2 << 8])
    }

    @Test func aProcessThatTakesTheTableOverLeavesNothingOfItsPredecessor() throws {
        let old = segment.inflightTable(slot: 0, incarnation: 1)
        for number in 1...5 as ClosedRange<UInt64> { _ = begin(old, number) }
        let new = segment.inflightTable(slot: 0, incarnation: 1 + LB_DEATHS)
        segment.noteDeath(slot: 0, incarnation: 1, signal: 9, unixNs: 5000)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        #expect(reader.tell(death).isEmpty)
        _ = begin(new, 9)
        #expect(reader.tell(death).isEmpty, "the new owner's request is no interrupted one")
        reader.settle(death)
        segment.noteDeath(slot: 0, incarnation: 1 + LB_DEATHS, signal: 9, unixNs: 5000)
        let next = try #require(reader.nextDeath())
        #expect(reader.tell(next).map(\.spanID) == [9 << 8])
    }

    @Test func entriesAreLentUntilTheyAreGivenBackAndNoFurther() {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        let taken = (0..<Int(LB_INFLIGHT_ENTRIES)).map { _ in table.take() }
        #expect(taken == (0..<Int32(LB_INFLIGHT_ENTRIES)).map { $0 })
        #expect(table.take() == -1)
        table.begin(-1, identity(1), method: "".utf8.span, authority: "".utf8.span, path: "".utf8.span)
        table.connecting(-1, backend: 0, "")
        table.attempt(-1, spanID: 1, startNs: 0, backend: 0, "")
        table.response(-1, status: 1, startNs: 0, .tunnel)
        table.end(-1)
        table.giveBack(-1)
        table.giveBack(17)
        #expect(table.take() == 17)
        #expect(table.take() == -1)
    }

    @Test func textsAreCutToFit() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        let long = String(repeating: "x", count: 3000)
        table.begin(
            table.take(), identity(1), method: long.utf8.span, authority: long.utf8.span, path: long.utf8.span)
        table.connecting(0, backend: 3, long)
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 5000)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        let request = try #require(reader.tell(death).first)
        #expect(request.method.count == 32 && request.authority.count == 96 && request.path.count == 216)
        #expect(request.backend?.host.count == 64)
    }

    @Test func timesAreBroughtIntoOrder() throws {
        let table = segment.inflightTable(slot: 0, incarnation: 0)
        let index = begin(table, 1)
        table.attempt(index, spanID: 3, startNs: .max - 5, backend: 0, "b")
        table.response(index, status: 200, startNs: 1, .streamingResponse)
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 400)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        let request = try #require(reader.tell(death).first)
        #expect(request.startUnixNs == 400)
        #expect(request.attempt?.startNs == 0 && request.attempt?.response?.startNs == 0)
    }

    @Test func anyBytesAreReadWithoutATrap() throws {
        var random = SplitMix64(seed: 20251125)
        for round in 0..<300 {
            let table = segment.inflightTable(slot: 0, incarnation: 0)
            for number in 1...4 as ClosedRange<UInt64> { _ = begin(table, number) }
            let entries = unsafe segment.inflightEntries(slot: 0, incarnation: 0)
            unsafe withUnsafeMutableBytes(of: &entries[1]) { bytes in
                for index in bytes.indices { unsafe bytes[index] = UInt8(truncatingIfNeeded: random.next()) }
            }
            unsafe entries[1].word = random.next() & (round % 2 == 0 ? 7 : .max)
            unsafe segment.inflightHeader(slot: 0, incarnation: 0).pointee.used = round % 3 == 0 ? random.next() : 4
            segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: round % 5 == 0 ? 0 : 5000)
            let reader = Reader(segment)
            let death = try #require(reader.nextDeath())
            #expect(reader.entryCount(of: death) <= Int(LB_INFLIGHT_ENTRIES))
            let told = reader.tell(death).map(\.spanID)
            #expect(Set(told).isSuperset(of: reader.entryCount(of: death) >= 4 ? [1 << 8, 3 << 8, 4 << 8] : []))
            reader.settle(death)
        }
    }

    @Test func aDeathWithoutSenseIsPassedOver() {
        let reader = Reader(segment)
        let record = unsafe segment.deathRecord(slot: 0, incarnation: 0)
        for word in [1 << 32 | 1, 0 << 32 | 3, .max, 4 << 32 | 2] as [UInt64] {
            unsafe record.pointee.word = word
            #expect(reader.nextDeath() == nil, "\(word)")
        }
        unsafe record.pointee.word = 4 << 32 | 1
        #expect(reader.nextDeath()?.incarnation == 4)
    }

    @Test func aDeathThatIsNotedKeepsTheConsumerAwake() throws {
        let consumer = segment.consumer()
        #expect(consumer.fallAsleep() == true)
        consumer.wakeUp()
        segment.noteDeath(slot: 1, incarnation: 0, signal: 9, unixNs: 1)
        #expect(consumer.fallAsleep() == false)
        let reader = Reader(segment)
        let death = try #require(reader.nextDeath())
        reader.settle(death)
        #expect(consumer.fallAsleep() == true)
    }

    @Test func theConsumersOwnRingIsTheLast() {
        var producer = segment.postMortemProducer()
        NumberedTree.publish(8, to: &producer)
        var consumer = segment.consumer()
        #expect(consumer.ringCount == 3)
        #expect(consumer.drain(slot: 2) == [8])
        #expect(consumer.drain(slot: 0) == [] && consumer.drain(slot: 1) == [])
    }
}
