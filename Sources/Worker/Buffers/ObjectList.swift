/// References in memory of its own: adding and taking one is a few loads and stores, without the checks that an array
/// inside of an object costs at run time.
///
/// Unsafe inside, safe to use: every number is checked against the count.
@safe
final class ObjectList<Element: AnyObject> {
    private var storage: UnsafeMutablePointer<Element>
    private var capacity: Int
    private(set) var count = 0

    /// - Parameter capacity: Elements that it has room for at first. Without any, it has no memory.
    init(capacity: Int = 8) {
        self.capacity = capacity
        unsafe storage = capacity > 0 ? .allocate(capacity: capacity) : Self.noStorage
    }

    deinit {
        unsafe storage.deinitialize(count: count)
        if capacity > 0 { unsafe storage.deallocate() }
    }

    /// What nothing is read from or written to.
    private static var noStorage: UnsafeMutablePointer<Element> {
        guard let address = unsafe UnsafeMutablePointer<Element>(bitPattern: MemoryLayout<Element>.alignment) else {
            preconditionFailure("an alignment of 0")
        }
        return unsafe address
    }

    /// Gives the memory of an empty list back.
    func releaseMemory() {
        guard count == 0, capacity > 0 else { return }
        unsafe storage.deallocate()
        unsafe storage = Self.noStorage
        capacity = 0
    }

    @inline(__always)
    var isEmpty: Bool { count == 0 }

    @inline(__always)
    subscript(position: Int) -> Element {
        precondition(position >= 0 && position < count, "element \(position) of \(count)")
        return unsafe storage[position]
    }

    @inline(__always)
    func append(_ element: consuming Element) {
        if count == capacity { grow() }
        unsafe (storage + count).initialize(to: element)
        count += 1
    }

    /// The element that was added last.
    @inline(__always)
    func popLast() -> Element? {
        guard count > 0 else { return nil }
        count -= 1
        return unsafe (storage + count).move()
    }

    /// Takes one out; the last one gets its place.
    @inline(__always)
    func swapRemove(_ position: Int) -> Element {
        precondition(position >= 0 && position < count, "element \(position) of \(count)")
        count -= 1
        let removed = unsafe (storage + position).move()
        if position < count { unsafe (storage + position).moveInitialize(from: storage + count, count: 1) }
        return removed
    }

    func removeAll() {
        while popLast() != nil {}
    }

    @inline(never)
    private func grow() {
        let wanted = max(8, capacity * 2)
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: wanted)
        unsafe larger.moveInitialize(from: storage, count: count)
        if capacity > 0 { unsafe storage.deallocate() }
        unsafe storage = larger
        capacity = wanted
    }
}
