import Testing

@testable import Worker

@Suite struct HTTP2PoolStateTests {
    private static func waiter(_ number: Int) -> PoolState.Waiter { .init(slot: number, generation: 0) }

    /// A pool with a connection number 7, on which its maker's stream is open.
    private static func pool(streamsMax: Int = 2, connectionsMax: Int = 2, waitersMax: Int = 10) -> HTTP2PoolState {
        var pool = HTTP2PoolState(.init(connectionsMax: connectionsMax, waitersMax: waitersMax))
        #expect(pool.acquire(waiter(0)).action == .connect)
        let isOpen = pool.made(7, streamsMax: streamsMax, maker: waiter(0))
        #expect(isOpen)
        return pool
    }

    @Test func oneRequestMakesTheConnectionAndOthersWait() {
        var pool = HTTP2PoolState()
        #expect(pool.acquire(Self.waiter(0)).action == .connect)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        #expect(pool.acquire(Self.waiter(2)).action == .wait)
        #expect(pool.nextForLine() == nil)
        let isOpen = pool.made(7, streamsMax: 100, maker: Self.waiter(0))
        #expect(isOpen)
        #expect(pool.nextForLine() == .open(Self.waiter(1), connection: 7))
        #expect(pool.nextForLine() == .open(Self.waiter(2), connection: 7))
        #expect(pool.nextForLine() == nil)
        #expect(pool.streams(on: 7) == 3)
    }

    @Test func streamsShareAConnectionUpToItsLimit() {
        var pool = Self.pool()
        #expect(pool.acquire(Self.waiter(1)).action == .open(connection: 7))
        #expect(pool.acquire(Self.waiter(2)).action == .connect)
    }

    @Test func fullPoolLetsWaitInOrder() {
        var pool = Self.pool(streamsMax: 1, connectionsMax: 1)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        #expect(pool.acquire(Self.waiter(2)).action == .wait)
        #expect(pool.nextForLine() == nil)
        pool.streamClosed(on: 7)
        #expect(pool.nextForLine() == .open(Self.waiter(1), connection: 7))
        #expect(pool.nextForLine() == nil)
        pool.streamClosed(on: 7)
        #expect(pool.nextForLine() == .open(Self.waiter(2), connection: 7))
    }

    @Test func nobodyOvertakesTheLine() {
        var pool = Self.pool(streamsMax: 1, connectionsMax: 1)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        pool.streamClosed(on: 7)
        #expect(pool.acquire(Self.waiter(2)).action == .wait)
        #expect(pool.nextForLine() == .open(Self.waiter(1), connection: 7))
    }

    @Test func lineThatIsFullRejects() {
        var pool = Self.pool(streamsMax: 1, connectionsMax: 1, waitersMax: 1)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        #expect(pool.acquire(Self.waiter(2)).action == .reject)
    }

    @Test func limitThatGrowsLetsTheLineIn() {
        var pool = Self.pool(streamsMax: 1, connectionsMax: 1)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        pool.limitChanged(7, streamsMax: 2)
        #expect(pool.nextForLine() == .open(Self.waiter(1), connection: 7))
    }

    @Test func limitThatShrinksIsRespected() {
        var pool = Self.pool(streamsMax: 5)
        pool.limitChanged(7, streamsMax: 1)
        #expect(pool.acquire(Self.waiter(1)).action == .connect)
    }

    @Test func retiredConnectionGetsNoStreamsAndNoPlace() {
        var pool = Self.pool(streamsMax: 5, connectionsMax: 1)
        let mayClose = pool.retired(7)
        #expect(!mayClose)
        #expect(pool.acquire(Self.waiter(1)).action == .connect)
        pool.streamClosed(on: 7)
        let mayCloseNow = pool.retired(7)
        #expect(mayCloseNow)
    }

    @Test func failureLetsTheNextInLineConnect() {
        var pool = HTTP2PoolState()
        #expect(pool.acquire(Self.waiter(0)).action == .connect)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        pool.failed()
        #expect(pool.nextForLine() == .connect(Self.waiter(1)))
        #expect(pool.nextForLine() == nil)
    }

    @Test func closedConnectionIsForgotten() {
        var pool = Self.pool(streamsMax: 5, connectionsMax: 1)
        pool.closed(7)
        pool.streamClosed(on: 7)
        #expect(pool.connectionCount == 0)
        #expect(pool.acquire(Self.waiter(1)).action == .connect)
    }

    @Test func whoLeftTheLineGetsNothing() {
        var pool = Self.pool(streamsMax: 1, connectionsMax: 1)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        pool.waiterLeft(Self.waiter(1))
        pool.streamClosed(on: 7)
        #expect(pool.nextForLine() == nil)
    }

    @Test func countsTellIdleFromActive() {
        var pool = Self.pool(streamsMax: 5)
        #expect(pool.acquire(Self.waiter(1)) == .init(action: .open(connection: 7), idleBefore: 0, activeBefore: 1))
        pool.streamClosed(on: 7)
        pool.streamClosed(on: 7)
        #expect(pool.acquire(Self.waiter(1)) == .init(action: .open(connection: 7), idleBefore: 1, activeBefore: 0))
    }

    @Test func retiredConnectionIsActiveAsLongAsItHasStreams() {
        var pool = Self.pool(streamsMax: 5)
        _ = pool.retired(7)
        #expect(pool.acquire(Self.waiter(1)) == .init(action: .connect, idleBefore: 0, activeBefore: 1))
        pool.streamClosed(on: 7)
        #expect(pool.acquire(Self.waiter(2)) == .init(action: .wait, idleBefore: 0, activeBefore: 0))
    }

    @Test func connectionWithoutStreamsLetsItsMakerWaitInFront() {
        var pool = HTTP2PoolState(.init(connectionsMax: 8, waitersMax: 10))
        #expect(pool.acquire(Self.waiter(0)).action == .connect)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        let isOpen = pool.made(7, streamsMax: 0, maker: Self.waiter(0))
        #expect(!isOpen)
        #expect(pool.nextForLine() == nil, "another connection would come without streams too")
        #expect(pool.acquire(Self.waiter(2)).action == .wait)
        pool.limitChanged(7, streamsMax: 2)
        #expect(pool.nextForLine() == .open(Self.waiter(0), connection: 7))
        #expect(pool.nextForLine() == .open(Self.waiter(1), connection: 7))
        #expect(pool.nextForLine() == .connect(Self.waiter(2)))
    }

    @Test func connectionThatIsClosedToStreamsLaterIsJoinedByAnother() {
        var pool = Self.pool(streamsMax: 5)
        pool.limitChanged(7, streamsMax: 0)
        #expect(pool.acquire(Self.waiter(1)).action == .connect)
    }

    @Test func everythingIsRetiredAtOnce() {
        var pool = Self.pool(streamsMax: 1, connectionsMax: 3)
        #expect(pool.acquire(Self.waiter(1)).action == .connect)
        let isOpen = pool.made(8, streamsMax: 1, maker: Self.waiter(1))
        #expect(isOpen)
        pool.streamClosed(on: 8)
        let idle = pool.retireAll()
        #expect(idle == [8])
        #expect(pool.isRetired(7) && pool.isRetired(8))
    }

    @Test func congestedConnectionIsLeftAloneWhileThereIsAnother() {
        var pool = Self.pool(streamsMax: 5)
        pool.congestionChanged(7, isCongested: true)
        #expect(pool.acquire(Self.waiter(1)).action == .connect)
        let isOpen = pool.made(8, streamsMax: 2, maker: Self.waiter(1))
        #expect(isOpen)
        #expect(pool.acquire(Self.waiter(2)).action == .open(connection: 8))
        #expect(pool.acquire(Self.waiter(3)).action == .open(connection: 7), "there is no other place")
        pool.streamClosed(on: 8)
        #expect(pool.acquire(Self.waiter(4)).action == .open(connection: 8))
        pool.congestionChanged(7, isCongested: false)
        #expect(pool.acquire(Self.waiter(5)).action == .open(connection: 7))
    }

    @Test func lineGoesToACongestedConnectionWhereNoOtherMayBeMade() {
        var pool = Self.pool(streamsMax: 1, connectionsMax: 1)
        #expect(pool.acquire(Self.waiter(1)).action == .wait)
        pool.congestionChanged(7, isCongested: true)
        pool.streamClosed(on: 7)
        #expect(pool.nextForLine() == .open(Self.waiter(1), connection: 7))
    }
}
