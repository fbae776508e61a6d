/// What is made anew for each request and costs more to make than to reset.
protocol Reusable: AnyObject {
    /// Makes it as good as new.
    func reset()
}

/// Objects that wait for their next use, last in first out. An object that somebody still refers to is not kept: what
/// is taken from here is nobody else's.
final class ReuseList<Element: Reusable> {
    private let free: ObjectList<Element>
    private let countMax: Int

    init(countMax: Int) {
        self.countMax = countMax
        free = ObjectList(capacity: countMax)
    }

    var count: Int { free.count }

    func take() -> Element? { free.popLast() }

    /// - Returns: Whether it was kept.
    @discardableResult
    func keep(_ element: consuming Element) -> Bool {
        guard free.count < countMax, isKnownUniquelyReferenced(&element) else { return false }
        element.reset()
        free.append(element)
        return true
    }
}
