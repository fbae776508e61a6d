import Testing

@testable import Worker

@Suite struct ObjectListTests {
    private final class Thing {
        let number: Int
        init(_ number: Int) { self.number = number }
    }

    private static func list(_ count: Int) -> ObjectList<Thing> {
        let list = ObjectList<Thing>(capacity: 2)
        for number in 0..<count { list.append(Thing(number)) }
        return list
    }

    private static func numbers(_ list: ObjectList<Thing>) -> [Int] { (0..<list.count).map { list[$0].number } }

    @Test func keepsTheOrderWhileItGrows() {
        #expect(Self.numbers(Self.list(9)) == Array(0..<9))
    }

    @Test func theLastOneComesBackFirst() {
        let list = Self.list(3)
        #expect(list.popLast()?.number == 2)
        #expect(list.popLast()?.number == 1)
        #expect(Self.numbers(list) == [0])
        #expect(list.popLast() != nil)
        #expect(list.popLast() == nil && list.isEmpty)
    }

    @Test func theLastOneFillsTheGap() {
        let list = Self.list(4)
        #expect(list.swapRemove(1).number == 1)
        #expect(Self.numbers(list) == [0, 3, 2])
        #expect(list.swapRemove(2).number == 2)
        #expect(Self.numbers(list) == [0, 3])
    }

    /// Sees an object end without keeping it.
    private final class Watched {
        private weak var thing: Thing?
        var isGone: Bool { thing == nil }

        init(_ thing: Thing?) {
            self.thing = thing
        }
    }

    @Test func nothingIsKeptAliveThatWasTakenOut() {
        let list = Self.list(3)
        let first = Watched(list[0])
        let last = Watched(list[2])
        _ = list.swapRemove(0)
        #expect(first.isGone && !last.isGone)
        list.removeAll()
        #expect(last.isGone && list.isEmpty)
    }

    @Test func itsElementsEndWithIt() {
        var list: ObjectList<Thing>? = Self.list(3)
        let thing = Watched(list?[1])
        list = nil
        #expect(thing.isGone)
    }

    @Test func anEmptyListCanDoWithoutMemory() {
        let list = ObjectList<Thing>(capacity: 0)
        list.releaseMemory()
        #expect(list.popLast() == nil)
        for round in 1...3 {
            for number in 0..<(9 * round) { list.append(Thing(number)) }
            list.releaseMemory()
            #expect(Self.numbers(list) == Array(0..<(9 * round)))
            list.removeAll()
            list.releaseMemory()
            #expect(list.isEmpty)
        }
    }
}
