/// HTTP/2 connections of one worker to one backend, and the streams on them, as bookkeeping without I/O.
///
///     acquire ──► open a stream │ make a connection │ wait in line │ reject
///     made, failed, streamClosed, limitChanged, retired, closed ──► nextForLine, until it is nil
///
/// One request makes a connection and the others wait for it. A further connection is made only when every stream
/// of those that are there is taken. A connection that is `retired` keeps its streams and gets no more.
struct HTTP2PoolState: Sendable {
    struct Limits: Equatable, Sendable {
        var connectionsMax = 8
        var waitersMax = 1024
    }

    typealias Waiter = PoolState.Waiter

    /// What to do, and how the pool stood before.
    struct Acquired: Equatable {
        var action: AcquireAction
        /// Connections that wait for a stream, and those with one.
        var idleBefore: Int
        var activeBefore: Int
    }

    enum AcquireAction: Equatable {
        /// A stream on this connection; it is counted.
        case open(connection: Int)
        /// Make a connection; it is counted.
        case connect
        case wait
        case reject
    }

    /// What the first in line may do; it is in line no longer.
    enum LineAction: Equatable {
        case open(Waiter, connection: Int)
        case connect(Waiter)
    }

    private struct Member {
        var connection: Int
        var streams: Int
        var streamsMax: Int
        var isRetired = false
        /// The server has allowed no stream since the connection was made.
        var isBornClosed = false
        /// So much waits on its streams for slow clients that the others there may soon get nothing more.
        var isCongested = false

        var hasRoom: Bool { !isRetired && streams < streamsMax }
    }

    /// Streams that a connection is taken for while it is being made.
    private static let streamsExpected = 100

    private let limits: Limits
    private var members: ContiguousArray<Member> = []
    private var waiters: ContiguousArray<Waiter> = []
    /// Connections that are being made.
    private(set) var makingCount = 0

    init(_ limits: Limits = Limits()) {
        self.limits = limits
    }

    var waiterCount: Int { waiters.count }
    var connectionCount: Int { members.count + makingCount }
    /// A retired connection without streams is neither: it takes none, and is about to be closed.
    var idleCount: Int { members.count { $0.streams == 0 && !$0.isRetired } }
    var activeCount: Int { members.count { $0.streams > 0 } }
    private var retiredCount: Int { members.count { $0.isRetired } }
    /// Retired connections do not keep new ones from being made. A connection that came without streams does: the next
    /// one would come without them too.
    private var mayConnect: Bool {
        connectionCount - retiredCount < limits.connectionsMax
            && !members.contains { $0.isBornClosed && !$0.isRetired }
    }

    /// A request wants a stream.
    /// - Parameter avoided: A connection that has refused this request; it is taken only where no other can be had.
    mutating func acquire(_ waiter: Waiter, avoiding avoided: Int? = nil) -> Acquired {
        let (idle, active) = (idleCount, activeCount)
        return Acquired(action: action(waiter, avoided), idleBefore: idle, activeBefore: active)
    }

    private mutating func action(_ waiter: Waiter, _ avoided: Int?) -> AcquireAction {
        if waiters.isEmpty, let connection = openStream(avoiding: avoided) { return .open(connection: connection) }
        if waiters.count >= makingCount * Self.streamsExpected, mayConnect {
            makingCount += 1
            return .connect
        }
        if waiters.isEmpty, makingCount == 0, let connection = openStream(acceptsCongestion: true) {
            return .open(connection: connection)
        }
        guard waiters.count < limits.waitersMax else { return .reject }
        waiters.append(waiter)
        return .wait
    }

    /// The first connection with room, so that few are used.
    private mutating func openStream(avoiding avoided: Int? = nil, acceptsCongestion: Bool = false) -> Int? {
        let place = members.firstIndex {
            $0.hasRoom && $0.connection != avoided && (acceptsCongestion || !$0.isCongested)
        }
        guard let index = place else { return nil }
        members[index].streams += 1
        return members[index].connection
    }

    /// The first in line may go on.
    mutating func nextForLine() -> LineAction? {
        guard let waiter = waiters.first else { return nil }
        let mayConnect = mayConnect
        if let connection = openStream(acceptsCongestion: !mayConnect) {
            waiters.removeFirst()
            return .open(waiter, connection: connection)
        }
        guard makingCount == 0, mayConnect else { return nil }
        makingCount += 1
        waiters.removeFirst()
        return .connect(waiter)
    }

    /// The connection that was being made is ready.
    /// - Returns: Whether its maker has a stream there, which is counted. A server that allows none for now
    ///   (`streamsMax` 0, RFC 9113 §5.1.2) makes it the first in line.
    mutating func made(_ connection: Int, streamsMax: Int, maker: Waiter) -> Bool {
        makingCount -= 1
        let isOpen = streamsMax > 0
        members.append(
            Member(
                connection: connection, streams: isOpen ? 1 : 0, streamsMax: streamsMax, isBornClosed: !isOpen))
        if !isOpen { waiters.insert(maker, at: 0) }
        return isOpen
    }

    /// A connection that was counted elsewhere is made into one of these.
    mutating func makingAdopted() { makingCount += 1 }

    /// Everybody in line leaves it.
    mutating func dismissLine() -> ContiguousArray<Waiter> {
        defer { waiters = [] }
        return waiters
    }

    /// The connection that was being made could not be had.
    mutating func failed() {
        makingCount -= 1
        precondition(makingCount >= 0, "more connections failed than were being made")
    }

    mutating func streamClosed(on connection: Int) {
        guard let index = place(connection) else { return }
        members[index].streams -= 1
        precondition(members[index].streams >= 0, "connection \(connection) has lost count of its streams")
    }

    /// The server changed its mind about MAX_CONCURRENT_STREAMS; 0 closes it for now.
    mutating func limitChanged(_ connection: Int, streamsMax: Int) {
        guard let index = place(connection) else { return }
        members[index].streamsMax = streamsMax
        if streamsMax > 0 { members[index].isBornClosed = false }
    }

    /// Much waits on the connection's streams, or no longer so: then new streams go elsewhere while there is a place.
    mutating func congestionChanged(_ connection: Int, isCongested: Bool) {
        guard let index = place(connection) else { return }
        members[index].isCongested = isCongested
    }

    /// No more streams there.
    /// - Returns: Whether it has none, and may be closed.
    mutating func retired(_ connection: Int) -> Bool {
        guard let index = place(connection) else { return false }
        members[index].isRetired = true
        return members[index].streams == 0
    }

    /// No more streams on any connection.
    /// - Returns: Those that have none, and may be closed.
    mutating func retireAll() -> ContiguousArray<Int> {
        for index in members.indices { members[index].isRetired = true }
        return ContiguousArray(members.lazy.filter { $0.streams == 0 }.map(\.connection))
    }

    mutating func closed(_ connection: Int) {
        guard let index = place(connection) else { return }
        members.remove(at: index)
    }

    func streams(on connection: Int) -> Int { place(connection).map { members[$0].streams } ?? 0 }

    func isRetired(_ connection: Int) -> Bool { place(connection).map { members[$0].isRetired } ?? true }

    /// A request left the line.
    mutating func waiterLeft(_ waiter: Waiter) {
        waiters.removeAll { $0 == waiter }
    }

    private func place(_ connection: Int) -> Int? { members.firstIndex { $0.connection == connection } }
}
