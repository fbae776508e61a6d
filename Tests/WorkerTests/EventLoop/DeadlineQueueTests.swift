import Testing

@testable import Worker

@Suite struct DeadlineQueueTests {
    @Test func theFirstIsTheEarliest() {
        var queue = DeadlineQueue()
        queue.wake(0, atNs: 30)
        queue.wake(1, atNs: 10)
        queue.wake(2, atNs: 20)
        #expect(queue.nextNs == 10)
        #expect(queue.due(nowNs: 9) == nil)
        #expect(queue.due(nowNs: 10) == 1)
        queue.forget(1)
        #expect(queue.due(nowNs: 100) == 2)
    }

    @Test func aSlotHasOneWakeUp() {
        var queue = DeadlineQueue()
        queue.wake(5, atNs: 10)
        queue.wake(5, atNs: 40)
        #expect(queue.nextNs == 40)
        queue.wake(5, atNs: 20)
        #expect(queue.nextNs == 20)
        queue.forget(5)
        queue.forget(5)
        #expect(queue.nextNs == nil)
    }

    @Test func aWakeUpThatComesEarlierStays() {
        var queue = DeadlineQueue()
        #expect(queue.wake(3, by: 40) == 40)
        #expect(queue.wake(3, by: 50) == 40)
        #expect(queue.nextNs == 40)
        #expect(queue.wake(3, by: 30) == 30)
        #expect(queue.nextNs == 30)
        #expect(queue.wake(1, by: 60) == 60)
        queue.forget(3)
        #expect(queue.nextNs == 60)
    }

    /// Random operations on the queue and on a plain dictionary.
    @Test(arguments: 0..<30 as Range<UInt64>)
    func theQueueDoesWhatADictionaryWouldDo(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        var queue = DeadlineQueue()
        var model: [Int: UInt64] = [:]
        for _ in 0..<1000 {
            let slot = Int.random(in: 0..<40, using: &random)
            if Bool.random(using: &random) {
                let atNs = UInt64.random(in: 0..<500, using: &random)
                queue.wake(slot, atNs: atNs)
                model[slot] = atNs
            } else {
                queue.forget(slot)
                model[slot] = nil
            }
            #expect(queue.nextNs == model.values.min())
            if let due = queue.due(nowNs: 499) { #expect(model[due] == queue.nextNs) }
        }
    }
}
