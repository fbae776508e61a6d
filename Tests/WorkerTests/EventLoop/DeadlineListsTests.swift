import Testing

@testable import Worker

@Suite struct DeadlineListsTests {
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

    private func lists() -> DeadlineLists<Kind> { DeadlineLists { $0.durationNs } }

    private func popAll(_ lists: inout DeadlineLists<Kind>, nowNs: UInt64) -> [Int] {
        var slots: [Int] = []
        while let (slot, _) = lists.popExpired(nowNs: nowNs) { slots.append(slot) }
        return slots
    }

    @Test func nothingRunsAtFirst() {
        var lists = lists()
        #expect(lists.nextNs == nil)
        #expect(lists.popExpired(nowNs: .max) == nil)
        #expect(lists.armed(3) == nil)
        lists.disarm(3)
        #expect(lists.nextNs == nil)
    }

    @Test func aDeadlineIsDueAtItsTimeAndNotBefore() {
        var lists = lists()
        lists.arm(2, .short, nowNs: 5)
        #expect(lists.nextNs == 15)
        #expect(lists.popExpired(nowNs: 14) == nil)
        #expect(lists.popExpired(nowNs: 15)! == (2, .short))
        #expect(lists.popExpired(nowNs: 15) == nil)
        #expect(lists.armed(2) == nil)
    }

    @Test func armingAgainReplacesTheDeadline() {
        var lists = lists()
        lists.arm(0, .short, nowNs: 0)
        lists.arm(0, .long, nowNs: 0)
        #expect(lists.armed(0) == .long)
        #expect(lists.nextNs == 100)
        #expect(popAll(&lists, nowNs: 99) == [])
        #expect(popAll(&lists, nowNs: 100) == [0])
    }

    @Test func armingTheSameKindAgainMovesBehindTheOthers() {
        var lists = lists()
        for slot in 0..<3 { lists.arm(slot, .short, nowNs: 0) }
        lists.arm(0, .short, nowNs: 1)
        #expect(lists.nextNs == 10)
        #expect(popAll(&lists, nowNs: 10) == [1, 2])
        #expect(popAll(&lists, nowNs: 11) == [0])
    }

    @Test(arguments: 0..<3)
    func anyPlaceOfAListCanBeDisarmed(slot: Int) {
        var lists = lists()
        for each in 0..<3 { lists.arm(each, .short, nowNs: 0) }
        lists.disarm(slot)
        #expect(lists.armed(slot) == nil)
        #expect(popAll(&lists, nowNs: 10) == [0, 1, 2].filter { $0 != slot })
    }

    @Test func disarmingTwiceIsAsGoodAsOnce() {
        var lists = lists()
        lists.arm(0, .short, nowNs: 0)
        lists.arm(1, .short, nowNs: 0)
        lists.disarm(0)
        lists.disarm(0)
        #expect(popAll(&lists, nowNs: 10) == [1])
    }

    @Test func theNextDeadlineIsTheFirstOfAllKinds() {
        var lists = lists()
        lists.arm(0, .long, nowNs: 0)
        lists.arm(1, .short, nowNs: 80)
        #expect(lists.nextNs == 90)
        lists.disarm(1)
        #expect(lists.nextNs == 100)
    }

    /// Random operations on the lists and on a plain dictionary.
    @Test(arguments: 0..<30 as Range<UInt64>)
    func theListsDoWhatADictionaryWouldDo(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var lists = lists()
        var model: [Int: (kind: Kind, deadlineNs: UInt64)] = [:]
        var now: UInt64 = 0
        for _ in 0..<600 {
            now += UInt64.random(in: 0...8, using: &random)
            let slot = Int.random(in: 0..<12, using: &random)
            switch Int.random(in: 0..<5, using: &random) {
            case 0, 1, 2:
                let kind = Kind.allCases.randomElement(using: &random)!
                lists.arm(slot, kind, nowNs: now)
                model[slot] = (kind, now + kind.durationNs)
            case 3:
                lists.disarm(slot)
                model[slot] = nil
            default:
                let due = model.filter { $0.value.deadlineNs <= now }.keys.sorted()
                #expect(popAll(&lists, nowNs: now).sorted() == due)
                for each in due { model[each] = nil }
            }
            #expect(lists.nextNs == model.values.map(\.deadlineNs).min())
            #expect(lists.armed(slot) == model[slot]?.kind)
        }
    }

    @Test(arguments: 0..<10 as Range<UInt64>)
    func deadlinesOfOneKindExpireInTheirOrder(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var lists = lists()
        var armedAt: [Int: Int] = [:]
        for turn in 0..<60 {
            let slot = Int.random(in: 0..<20, using: &random)
            lists.arm(slot, .long, nowNs: UInt64(turn))
            armedAt[slot] = turn
        }
        let inOrder = armedAt.sorted { $0.value < $1.value }.map(\.key)
        #expect(popAll(&lists, nowNs: 1000) == inOrder)
    }
}
