/// Numbered places for connections. A place is reused, its generation is not, so that an event or a
/// waiting entry for an earlier occupant finds nothing.
final class SlotTable<Occupant: AnyObject> {
    private struct Slot {
        var occupant: Occupant?
        var generation: UInt32 = 0
    }

    private var slots: ContiguousArray<Slot> = []
    private var free: ContiguousArray<Int32> = []
    let capacity: Int
    /// Occupied places.
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
    }

    var isFull: Bool { count >= capacity }

    /// Takes a place for what `make` builds from its number and generation. Nil when the table is full.
    func insert(_ make: (_ slot: Int, _ generation: UInt32) -> Occupant) -> Occupant? {
        guard !isFull else { return nil }
        let index: Int
        if let reused = free.popLast() {
            index = Int(reused)
        } else {
            index = slots.count
            slots.append(Slot())
        }
        let occupant = make(index, slots[index].generation)
        slots[index].occupant = occupant
        count += 1
        return occupant
    }

    func remove(_ slot: Int) {
        guard slots[slot].occupant != nil else { return }
        slots[slot].occupant = nil
        slots[slot].generation = (slots[slot].generation + 1) & 0xFF_FFFF
        free.append(Int32(slot))
        count -= 1
    }

    /// The occupant, if the place still belongs to `generation`.
    @inline(__always)
    func occupant(_ slot: Int, generation: UInt32) -> Occupant? {
        guard slot < slots.count, slots[slot].generation == generation else { return nil }
        return slots[slot].occupant
    }

    /// Whoever is there now.
    func occupant(_ slot: Int) -> Occupant? {
        slot < slots.count ? slots[slot].occupant : nil
    }

    /// Everybody, in the order of their places.
    var occupants: [Occupant] { slots.compactMap(\.occupant) }
}
