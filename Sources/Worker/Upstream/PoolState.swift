/// Connections of one worker to one backend, as bookkeeping without I/O.
///
///     acquire ──► reuse (most recently used idle one) │ connect │ wait in line │ reject
///     connectionReleased ──► the first in line gets it │ it becomes idle │ close it
///     connectionClosed ──► the first in line may connect │ nothing
///
/// `total` counts every connection that exists or is being made; idle ones are in `idle`, the last
/// released at the end.
struct PoolState: Sendable {
    struct Limits: Equatable, Sendable {
        var connectionsMax = 4096
        var idleMax = 1024
        var waitersMax = 1024
    }

    /// A request in line: its client connection's place.
    struct Waiter: Equatable, Sendable {
        var slot: Int
        var generation: UInt32
    }

    /// What to do, and how the pool stood before.
    struct Acquired: Equatable {
        var action: AcquireAction
        var idleBefore: Int
        var activeBefore: Int
    }

    enum AcquireAction: Equatable {
        case reuse(connection: Int)
        case connect
        /// Close this idle connection, then connect in its place.
        case connectReplacing(connection: Int)
        case wait
        case reject
    }

    enum ReleaseAction: Equatable {
        case keepIdle
        case close
        case hand(to: Waiter)
    }

    private let limits: Limits
    private var idle: ContiguousArray<Int32> = []
    private var waiters: ContiguousArray<Waiter> = []
    private(set) var total = 0

    init(_ limits: Limits = Limits()) {
        self.limits = limits
    }

    var idleCount: Int { idle.count }
    var activeCount: Int { total - idle.count }
    var waiterCount: Int { waiters.count }

    /// A request wants a connection.
    /// - Parameter allowsReuse: False when it must be a fresh one.
    mutating func acquire(allowsReuse: Bool, waiter: Waiter) -> Acquired {
        let (idleBefore, activeBefore) = (idleCount, activeCount)
        let action = action(allowsReuse: allowsReuse, waiter: waiter)
        return Acquired(action: action, idleBefore: idleBefore, activeBefore: activeBefore)
    }

    private mutating func action(allowsReuse: Bool, waiter: Waiter) -> AcquireAction {
        if allowsReuse, let connection = idle.popLast() { return .reuse(connection: Int(connection)) }
        if total < limits.connectionsMax {
            total += 1
            return .connect
        }
        if !idle.isEmpty { return .connectReplacing(connection: Int(idle.removeFirst())) }
        guard waiters.count < limits.waitersMax else { return .reject }
        waiters.append(waiter)
        return .wait
    }

    /// A request is done with its connection, which could serve another.
    mutating func connectionReleased(_ connection: Int) -> ReleaseAction {
        if !waiters.isEmpty { return .hand(to: waiters.removeFirst()) }
        guard idle.count < limits.idleMax else {
            total -= 1
            return .close
        }
        idle.append(Int32(connection))
        return .keepIdle
    }

    /// A connection is gone, or could not be made.
    /// - Parameter connection: Its place if it was idle; nil if it served, or never came to be.
    /// - Returns: The request in line that may now make one; it is counted already.
    mutating func connectionClosed(_ connection: Int?) -> Waiter? {
        if let connection, let position = idle.lastIndex(of: Int32(connection)) { idle.remove(at: position) }
        total -= 1
        precondition(total >= idle.count, "pool counts \(total) connections, \(idle.count) of them idle")
        guard !waiters.isEmpty, total < limits.connectionsMax else { return nil }
        total += 1
        return waiters.removeFirst()
    }

    /// A connection that was counted elsewhere serves here now.
    mutating func connectionAdopted() { total += 1 }

    /// A request left the line.
    mutating func waiterLeft(_ waiter: Waiter) {
        waiters.removeAll { $0 == waiter }
    }
}
