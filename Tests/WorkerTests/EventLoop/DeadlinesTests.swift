import Testing

@testable import Worker

@Suite struct DeadlinesTests {
    private enum Kind: UInt8, CaseIterable, Sendable {
        case short, long, never

        var durationNs: UInt64 {
            switch self {
            case .short: 10
            case .long: 100
            case .never: 1_000_000
            }
        }
    }

    /// Connections in slots, without sockets, and their deadlines.
    private final class Table {
        let deadlines = Deadlines<Kind> { $0.durationNs }
        private(set) var connections: [Connection?] = (0..<12).map {
            Connection(descriptor: -1, slot: $0, generation: 0)
        }

        func arm(_ slot: Int, _ kind: Kind, nowNs: UInt64) { deadlines.arm(connections[slot]!, kind, nowNs: nowNs) }
        func disarm(_ slot: Int) { deadlines.disarm(connections[slot]!) }
        func armed(_ slot: Int) -> Kind? { deadlines.armed(connections[slot]!) }

        /// Another connection takes the place of the one in the slot.
        func replace(_ slot: Int) {
            deadlines.remove(connections[slot]!)
            connections[slot] = Connection(descriptor: -1, slot: slot, generation: 1)
        }

        func vacateWithoutRemoval(_ slot: Int) { connections[slot] = nil }

        func pop(nowNs: UInt64) -> (slot: Int, kind: Kind)? {
            deadlines.popExpired(nowNs: nowNs) { connections[$0] }.map { ($0.connection.slot, $0.kind) }
        }

        func popAll(nowNs: UInt64) -> [Int] {
            var slots: [Int] = []
            while let (slot, _) = pop(nowNs: nowNs) { slots.append(slot) }
            return slots
        }
    }

    private let table = Table()

    @Test func nothingRunsAtFirst() {
        #expect(table.deadlines.nextNs == nil)
        #expect(table.pop(nowNs: .max) == nil)
        #expect(table.armed(3) == nil)
        table.disarm(3)
        #expect(table.deadlines.nextNs == nil)
    }

    @Test func aDeadlineIsDueAtItsTimeAndNotBefore() {
        table.arm(2, .short, nowNs: 5)
        #expect(table.deadlines.nextNs == 15)
        #expect(table.pop(nowNs: 14) == nil)
        #expect(table.pop(nowNs: 15)! == (2, .short))
        #expect(table.pop(nowNs: 15) == nil)
        #expect(table.armed(2) == nil)
        #expect(table.deadlines.nextNs == nil)
    }

    @Test func armingAgainReplacesTheDeadline() {
        table.arm(0, .short, nowNs: 0)
        table.arm(0, .long, nowNs: 0)
        #expect(table.armed(0) == .long)
        #expect(table.popAll(nowNs: 99) == [])
        #expect(table.deadlines.nextNs == 100)
        #expect(table.popAll(nowNs: 100) == [0])
    }

    @Test func aShorterDeadlineIsNotKeptByALongerOneBefore() {
        table.arm(0, .never, nowNs: 0)
        table.arm(1, .long, nowNs: 0)
        table.arm(0, .short, nowNs: 1)
        #expect(table.deadlines.nextNs == 11)
        #expect(table.popAll(nowNs: 11) == [0])
        #expect(table.popAll(nowNs: 1_000_000) == [1])
    }

    @Test func aDisarmedDeadlineIsNeverDue() {
        table.arm(0, .short, nowNs: 0)
        table.arm(1, .short, nowNs: 0)
        table.disarm(0)
        table.disarm(0)
        #expect(table.armed(0) == nil)
        #expect(table.popAll(nowNs: 10) == [1])
        #expect(table.popAll(nowNs: .max - 1) == [])
        #expect(table.deadlines.nextNs == nil)
    }

    @Test func aConnectionThatClosedLeavesNothingToItsSuccessor() {
        table.arm(0, .short, nowNs: 0)
        table.arm(1, .short, nowNs: 0)
        table.replace(0)
        #expect(table.popAll(nowNs: 10) == [1])
        table.arm(0, .short, nowNs: 10)
        #expect(table.popAll(nowNs: 19) == [])
        #expect(table.popAll(nowNs: 20) == [0])
    }

    @Test func anEmptySlotIsPassedOver() {
        table.arm(0, .short, nowNs: 0)
        table.arm(1, .long, nowNs: 0)
        table.vacateWithoutRemoval(0)
        #expect(table.popAll(nowNs: 100) == [1])
        #expect(table.deadlines.nextNs == nil)
    }

    /// Random operations on the deadlines and on a plain dictionary.
    @Test(arguments: 0..<30 as Range<UInt64>)
    func deadlinesDoWhatADictionaryWouldDo(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var model: [Int: (kind: Kind, deadlineNs: UInt64)] = [:]
        var now: UInt64 = 0
        for _ in 0..<600 {
            now += UInt64.random(in: 0...8, using: &random)
            let slot = Int.random(in: 0..<12, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0, 1, 2:
                let kind = Kind.allCases.randomElement(using: &random)!
                table.arm(slot, kind, nowNs: now)
                model[slot] = (kind, now + kind.durationNs)
            case 3:
                table.disarm(slot)
                model[slot] = nil
            case 4:
                table.replace(slot)
                model[slot] = nil
            default:
                let due = model.filter { $0.value.deadlineNs <= now }.keys.sorted()
                #expect(table.popAll(nowNs: now).sorted() == due)
                for each in due { model[each] = nil }
            }
            // It may wake too early, never too late.
            let first = model.values.map(\.deadlineNs).min() ?? .max
            #expect((table.deadlines.nextNs ?? .max) <= first)
            #expect(table.armed(slot) == model[slot]?.kind)
        }
    }

    @Test(arguments: 0..<10 as Range<UInt64>)
    func deadlinesExpireInTheirOrderAsTimePasses(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var armedAt: [Int: Int] = [:]
        for turn in 0..<60 {
            let slot = Int.random(in: 0..<12, using: &random)
            table.arm(slot, .long, nowNs: UInt64(turn))
            armedAt[slot] = turn
        }
        let inOrder = armedAt.sorted { $0.value < $1.value }.map(\.key)
        #expect((0...UInt64(200)).flatMap { table.popAll(nowNs: $0) } == inOrder)
    }
}
