import Testing

@testable import Worker

@Suite struct PoolStateTests {
    private static func waiter(_ slot: Int) -> PoolState.Waiter { PoolState.Waiter(slot: slot, generation: 1) }

    private func pool(connections: Int = 4, idle: Int = 4, waiters: Int = 4) -> PoolState {
        PoolState(PoolState.Limits(connectionsMax: connections, idleMax: idle, waitersMax: waiters))
    }

    /// A pool whose connections 1...n are idle, n released last.
    private func pool(idleConnections: Int, limit: Int = 4) -> PoolState {
        var pool = pool(connections: limit)
        for slot in 1...idleConnections { _ = pool.acquire(allowsReuse: false, waiter: Self.waiter(slot)) }
        for slot in 1...idleConnections { _ = pool.connectionReleased(slot) }
        return pool
    }

    @Test func theFirstRequestConnects() {
        var pool = pool()
        #expect(pool.acquire(allowsReuse: true, waiter: Self.waiter(0)).action == .connect)
        #expect(pool.total == 1)
        #expect(pool.activeCount == 1)
        #expect(pool.idleCount == 0)
    }

    @Test func theConnectionUsedLastIsUsedNext() {
        var pool = pool(idleConnections: 3)
        let order = (0..<3).map { _ in pool.acquire(allowsReuse: true, waiter: Self.waiter(0)).action }
        #expect(order == [.reuse(connection: 3), .reuse(connection: 2), .reuse(connection: 1)])
        #expect(pool.activeCount == 3)
    }

    @Test func aFreshConnectionLeavesTheIdleOnesAlone() {
        var pool = pool(idleConnections: 2)
        #expect(pool.acquire(allowsReuse: false, waiter: Self.waiter(0)).action == .connect)
        #expect(pool.idleCount == 2)
    }

    @Test func aFreshConnectionInAFullPoolTakesThePlaceOfTheOldestIdleOne() {
        var pool = pool(idleConnections: 4)
        #expect(pool.acquire(allowsReuse: false, waiter: Self.waiter(0)).action == .connectReplacing(connection: 1))
        #expect(pool.total == 4)
        #expect(pool.idleCount == 3)
    }

    @Test func aFullPoolMakesRequestsWaitInLine() {
        var pool = pool(connections: 1)
        _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(1))
        #expect(pool.acquire(allowsReuse: true, waiter: Self.waiter(2)).action == .wait)
        #expect(pool.acquire(allowsReuse: true, waiter: Self.waiter(3)).action == .wait)
        #expect(pool.connectionReleased(9) == .hand(to: Self.waiter(2)))
        #expect(pool.connectionReleased(9) == .hand(to: Self.waiter(3)))
        #expect(pool.connectionReleased(9) == .keepIdle)
    }

    @Test func aFullLineRejects() {
        var pool = pool(connections: 1, waiters: 1)
        _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(1))
        _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(2))
        #expect(pool.acquire(allowsReuse: true, waiter: Self.waiter(3)).action == .reject)
        #expect(pool.waiterCount == 1)
    }

    @Test func aConnectionBeyondTheIdleLimitIsClosedAndCountedOut() {
        var pool = pool(idle: 1)
        for slot in 1...2 { _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(slot)) }
        #expect(pool.connectionReleased(1) == .keepIdle)
        #expect(pool.connectionReleased(2) == .close)
        #expect(pool.total == 1)
    }

    @Test func aClosedConnectionLetsTheFirstInLineConnect() {
        var pool = pool(connections: 1)
        _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(1))
        _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(2))
        #expect(pool.connectionClosed(1) == Self.waiter(2))
        #expect(pool.total == 1, "the place is counted for the one who may connect")
        #expect(pool.waiterCount == 0)
    }

    @Test func aConnectThatFailedGivesItsPlaceBack() {
        var pool = pool(connections: 1)
        _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(1))
        #expect(pool.connectionClosed(nil) == nil)
        #expect(pool.acquire(allowsReuse: true, waiter: Self.waiter(2)).action == .connect)
    }

    @Test func anIdleConnectionThatClosesIsNotGivenToAnybody() {
        var pool = pool(idleConnections: 3)
        #expect(pool.connectionClosed(2) == nil)
        let order = (0..<3).map { _ in pool.acquire(allowsReuse: true, waiter: Self.waiter(0)).action }
        #expect(order == [.reuse(connection: 3), .reuse(connection: 1), .connect])
    }

    @Test func whoLeftTheLineGetsNothing() {
        var pool = pool(connections: 1)
        for slot in 1...3 { _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(slot)) }
        pool.waiterLeft(Self.waiter(2))
        #expect(pool.connectionReleased(1) == .hand(to: Self.waiter(3)))
    }

    @Test func leavingNeedsTheRightGeneration() {
        var pool = pool(connections: 1)
        for slot in 1...2 { _ = pool.acquire(allowsReuse: true, waiter: Self.waiter(slot)) }
        pool.waiterLeft(PoolState.Waiter(slot: 2, generation: 2))
        #expect(pool.waiterCount == 1)
    }

    /// Random events on a pool and on a plain model of it, which keeps who is where instead of numbers.
    @Test(arguments: 0..<40 as Range<UInt64>)
    func theBooksAreRightWhateverHappens(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let limits = PoolState.Limits(
            connectionsMax: Int.random(in: 1...6, using: &random), idleMax: Int.random(in: 0...4, using: &random),
            waitersMax: Int.random(in: 0...4, using: &random))
        var model = PoolModel(limits)
        for step in 0..<400 {
            let problem = model.randomEvent(step, &random)
            #expect(problem == nil, "step \(step), \(limits)")
            if problem != nil { return }
        }
    }
}

/// A pool and the world around it: connections by name, in sets and lists.
private struct PoolModel {
    private let limits: PoolState.Limits
    private var pool: PoolState
    /// The last released at the end.
    private var idle: [Int] = []
    private var busy: [Int] = []
    private var line: [PoolState.Waiter] = []
    private var nextConnection = 100

    init(_ limits: PoolState.Limits) {
        self.limits = limits
        pool = PoolState(limits)
    }

    /// - Returns: What the pool did wrong.
    mutating func randomEvent(_ step: Int, _ random: inout SplitMix64) -> String? {
        let problem: String?
        switch Int.random(in: 0..<8, using: &random) {
        case 0...2:
            problem = acquire(PoolState.Waiter(slot: step, generation: 7), allowsReuse: Bool.random(using: &random))
        case 3, 4: problem = release(&random)
        case 5: problem = closeBusy(&random)
        case 6: problem = closeIdle(&random)
        default: problem = leaveLine(&random)
        }
        return problem ?? wrongCount
    }

    private var wrongCount: String? {
        let counts = (pool.total, pool.idleCount, pool.activeCount, pool.waiterCount)
        let right = (idle.count + busy.count, idle.count, busy.count, line.count)
        return counts == right ? nil : "counts \(counts), should be \(right)"
    }

    private mutating func acquire(_ waiter: PoolState.Waiter, allowsReuse: Bool) -> String? {
        let action = pool.acquire(allowsReuse: allowsReuse, waiter: waiter).action
        let right: PoolState.AcquireAction
        if allowsReuse, let last = idle.popLast() {
            right = .reuse(connection: last)
            busy.append(last)
        } else if idle.count + busy.count < limits.connectionsMax {
            right = .connect
            connect()
        } else if let first = idle.first {
            right = .connectReplacing(connection: first)
            idle.removeFirst()
            connect()
        } else if line.count < limits.waitersMax {
            right = .wait
            line.append(waiter)
        } else {
            right = .reject
        }
        return action == right ? nil : "acquire \(action), should be \(right)"
    }

    private mutating func connect() {
        busy.append(nextConnection)
        nextConnection += 1
    }

    private mutating func release(_ random: inout SplitMix64) -> String? {
        guard let connection = takeBusy(&random) else { return nil }
        let action = pool.connectionReleased(connection)
        let right: PoolState.ReleaseAction
        if !line.isEmpty {
            right = .hand(to: line.removeFirst())
            busy.append(connection)
        } else if idle.count < limits.idleMax {
            right = .keepIdle
            idle.append(connection)
        } else {
            right = .close
        }
        return action == right ? nil : "release \(action), should be \(right)"
    }

    private mutating func closeBusy(_ random: inout SplitMix64) -> String? {
        guard let connection = takeBusy(&random) else { return nil }
        return closed(pool.connectionClosed(Bool.random(using: &random) ? connection : nil))
    }

    private mutating func closeIdle(_ random: inout SplitMix64) -> String? {
        guard let connection = idle.randomElement(using: &random) else { return nil }
        idle.removeAll { $0 == connection }
        return closed(pool.connectionClosed(connection))
    }

    private mutating func closed(_ next: PoolState.Waiter?) -> String? {
        let right = line.isEmpty ? nil : line.removeFirst()
        if right != nil { connect() }
        return next == right ? nil : "a closed connection goes to \(String(describing: next))"
    }

    private mutating func leaveLine(_ random: inout SplitMix64) -> String? {
        guard let waiter = line.randomElement(using: &random) else { return nil }
        line.removeAll { $0 == waiter }
        pool.waiterLeft(waiter)
        return nil
    }

    private mutating func takeBusy(_ random: inout SplitMix64) -> Int? {
        guard !busy.isEmpty else { return nil }
        return busy.remove(at: Int.random(in: 0..<busy.count, using: &random))
    }
}
