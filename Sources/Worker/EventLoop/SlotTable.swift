/// Numbered places for connections. A place is reused, its generation is not, so that an event or a
/// waiting entry for an earlier occupant finds nothing.
///
/// Asked for every event, so the places stand in memory of its own, in which a look-up costs a few loads.
/// Unsafe inside, safe to use: every number is checked against the count.
@safe
final class SlotTable<Occupant: AnyObject> {
    private struct Slot {
        var occupant: Occupant?
        var generation: UInt32 = 0
    }

    private var slots: UnsafeMutablePointer<Slot>
    private var room = 64
    /// Places that were ever taken.
    private var slotCount = 0
    /// Places that are free again; has room for all.
    private var free: UnsafeMutablePointer<Int32>
    private var freeCount = 0
    let capacity: Int
    /// Occupied places.
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        unsafe slots = .allocate(capacity: room)
        unsafe free = .allocate(capacity: room)
    }

    deinit {
        unsafe slots.deinitialize(count: slotCount)
        unsafe slots.deallocate()
        unsafe free.deallocate()
    }

    var isFull: Bool { count >= capacity }

    /// Takes a place for what `make` builds from its number and generation. Nil when the table is full.
    func insert(_ make: (_ slot: Int, _ generation: UInt32) -> Occupant) -> Occupant? {
        guard !isFull else { return nil }
        let index = takeFree() ?? addSlot()
        let occupant = make(index, unsafe slots[index].generation)
        unsafe slots[index].occupant = occupant
        count += 1
        return occupant
    }

    func remove(_ slot: Int) {
        precondition(slot >= 0 && slot < slotCount, "no slot \(slot)")
        guard unsafe slots[slot].occupant != nil else { return }
        unsafe slots[slot].occupant = nil
        unsafe slots[slot].generation = (slots[slot].generation + 1) & 0xFF_FFFF
        unsafe free[freeCount] = Int32(slot)
        freeCount += 1
        count -= 1
    }

    /// The place that became free last.
    @inline(__always)
    private func takeFree() -> Int? {
        guard freeCount > 0 else { return nil }
        freeCount -= 1
        return unsafe Int(free[freeCount])
    }

    /// The occupant, if the place still belongs to `generation`.
    @inline(__always)
    func occupant(_ slot: Int, generation: UInt32) -> Occupant? {
        guard slot >= 0, slot < slotCount, unsafe slots[slot].generation == generation else { return nil }
        return unsafe slots[slot].occupant
    }

    /// Whoever is there now.
    @inline(__always)
    func occupant(_ slot: Int) -> Occupant? {
        guard slot >= 0, slot < slotCount else { return nil }
        return unsafe slots[slot].occupant
    }

    /// Everybody, in the order of their places.
    var occupants: [Occupant] { (0..<slotCount).compactMap { occupant($0) } }

    private func addSlot() -> Int {
        if slotCount == room { grow() }
        unsafe (slots + slotCount).initialize(to: Slot())
        slotCount += 1
        return slotCount - 1
    }

    private func grow() {
        let larger = UnsafeMutablePointer<Slot>.allocate(capacity: room * 2)
        unsafe larger.moveInitialize(from: slots, count: slotCount)
        unsafe slots.deallocate()
        unsafe slots = larger
        // Only a table without a free place grows.
        unsafe free.deallocate()
        unsafe free = .allocate(capacity: room * 2)
        room *= 2
    }
}
