import CShims
import Glibc
import Testing

@testable import ShmRing

// Unsafe: reads death records out of a ring's header.

@Suite struct DeathRecordTests {
    private func records(_ segment: SpanSegment, slot: Int) -> [lb_death_record] {
        let deaths = unsafe segment.ring(slot).pointee.deaths
        return [deaths.0, deaths.1, deaths.2, deaths.3]
    }

    @Test func aDeathStandsInTheRecordOfItsIncarnation() throws {
        let segment = try SpanSegment(ringCount: 2, ringBytesMin: 0, generation: 1, masterPID: 1)
        segment.noteDeath(slot: 1, incarnation: 6, signal: SIGKILL, unixNs: 77)
        let noted = records(segment, slot: 1)
        #expect(noted[2].word == 6 << 32 | 1)
        #expect(noted[2].signal == SIGKILL)
        #expect(noted[2].unix_ns == 77)
        #expect(noted.map(\.word).filter { $0 != 0 }.count == 1)
        #expect(records(segment, slot: 0).allSatisfy { $0.word == 0 })
    }

    @Test func aLaterIncarnationTakesTheRecordOver() throws {
        let segment = try SpanSegment(ringCount: 1, ringBytesMin: 0, generation: 1, masterPID: 1)
        for incarnation in 0..<5 as Range<UInt32> {
            segment.noteDeath(slot: 0, incarnation: incarnation, signal: 0, unixNs: UInt64(incarnation))
        }
        #expect(records(segment, slot: 0).map { $0.word >> 32 } == [4, 1, 2, 3])
    }

    @Test func aSleepingConsumerIsWoken() throws {
        let segment = try SpanSegment(ringCount: 1, ringBytesMin: 0, generation: 1, masterPID: 1)
        let consumer = segment.consumer()
        var count: UInt64 = 0
        segment.noteDeath(slot: 0, incarnation: 0, signal: 9, unixNs: 1)
        #expect(unsafe read(segment.wakeDescriptor, &count, 8) < 0, "it is awake and looks by itself")
        let reader = segment.postMortemReader()
        reader.settle(try #require(reader.nextDeath()))
        #expect(consumer.fallAsleep() == true)
        segment.noteDeath(slot: 0, incarnation: 1, signal: 9, unixNs: 1)
        #expect(unsafe read(segment.wakeDescriptor, &count, 8) == 8)
    }
}
