/// Wake-ups of many connections, at most one each, the earliest first.
///
/// A binary heap that knows where each slot stands in it, so that a wake-up can be moved and forgotten.
struct DeadlineQueue: Sendable {
    private struct WakeUp: Sendable {
        var atNs: UInt64
        var slot: Int32
    }

    private var heap: ContiguousArray<WakeUp> = []
    /// By slot: its place in the heap, -1 for none.
    private var places: ContiguousArray<Int32> = []

    /// When something may be due, nil when there is none.
    var nextNs: UInt64? { heap.first?.atNs }

    /// Asks for a wake-up of `slot` at `atNs`, in place of the one it has.
    mutating func wake(_ slot: Int, atNs: UInt64) {
        while places.count <= slot { places.append(-1) }
        let wakeUp = WakeUp(atNs: atNs, slot: Int32(slot))
        if places[slot] >= 0 {
            settle(wakeUp, at: Int(places[slot]))
        } else {
            heap.append(wakeUp)
            settle(wakeUp, at: heap.count - 1)
        }
    }

    /// Asks for a wake-up of `slot` no later than `atNs`.
    /// - Returns: When it will be: one that is there already and comes earlier stays.
    mutating func wake(_ slot: Int, by atNs: UInt64) -> UInt64 {
        if slot < places.count, places[slot] >= 0 {
            let planned = heap[Int(places[slot])].atNs
            if planned <= atNs { return planned }
        }
        wake(slot, atNs: atNs)
        return atNs
    }

    /// Forgets the wake-up of `slot`, if it has one.
    mutating func forget(_ slot: Int) {
        guard slot < places.count, places[slot] >= 0 else { return }
        let place = Int(places[slot])
        places[slot] = -1
        let last = heap.removeLast()
        if place < heap.count { settle(last, at: place) }
    }

    /// The slot whose wake-up is the first that is due; the wake-up stays.
    func due(nowNs: UInt64) -> Int? {
        guard let first = heap.first, first.atNs <= nowNs else { return nil }
        return Int(first.slot)
    }

    /// Puts a wake-up where it belongs, from `place` on up or down.
    private mutating func settle(_ wakeUp: WakeUp, at place: Int) {
        var place = place
        while place > 0, heap[(place - 1) / 2].atNs > wakeUp.atNs {
            move((place - 1) / 2, to: place)
            place = (place - 1) / 2
        }
        while let child = earlierChild(of: place), heap[child].atNs < wakeUp.atNs {
            move(child, to: place)
            place = child
        }
        heap[place] = wakeUp
        places[Int(wakeUp.slot)] = Int32(place)
    }

    private func earlierChild(of place: Int) -> Int? {
        let left = 2 * place + 1
        guard left < heap.count else { return nil }
        return left + 1 < heap.count && heap[left + 1].atNs < heap[left].atNs ? left + 1 : left
    }

    private mutating func move(_ from: Int, to place: Int) {
        heap[place] = heap[from]
        places[Int(heap[place].slot)] = Int32(place)
    }
}
