/// The timeouts of many connections, one running deadline each.
///
/// Nearly every deadline is stopped or moved on before it is due, so arming must be cheap and expiry need not be: the
/// connection keeps what it waits for and until when, and the queue has for each connection one wake-up that is never
/// later than its deadline. A wake-up that comes too early is moved to the deadline as it stands then.
///
///     arm ──► connection: kind, deadline ──── not before its wake-up ──► two stores, nothing else
///                          │ before its wake-up, or it has none
///                          ▼
///     queue of wake-ups ─ due ─► deadline is over ──► the kind, to whoever asked
///              ▲                 deadline is later ─┐
///              └────────────────────────────────────┘
final class Deadlines<Kind: RawRepresentable & CaseIterable & Sendable> where Kind.RawValue == UInt8 {
    private var queue = DeadlineQueue()
    private let durationsNs: ContiguousArray<UInt64>

    /// - Parameter durationNs: The duration of each kind in nanoseconds.
    init(durationNs: (Kind) -> UInt64) {
        durationsNs = ContiguousArray(Kind.allCases.map(durationNs))
    }

    /// Starts the deadline of a connection, in place of the one that ran.
    @inline(__always)
    func arm(_ connection: Connection, _ kind: Kind, nowNs: UInt64) {
        let atNs = nowNs &+ durationsNs[Int(kind.rawValue)]
        connection.deadline.kind = kind.rawValue
        connection.deadline.atNs = atNs
        if atNs < connection.deadline.wakeUpNs { wakeEarlier(connection) }
    }

    /// Stops the deadline of a connection, if one runs.
    @inline(__always)
    func disarm(_ connection: Connection) {
        connection.deadline.kind = Deadline.noKind
        connection.deadline.atNs = .max
    }

    /// The kind of deadline that runs for a connection.
    @inline(__always)
    func armed(_ connection: Connection) -> Kind? { Kind(rawValue: connection.deadline.kind) }

    /// Forgets a connection that closes. Its wake-up stays for the next one in its place: streams come and go by the
    /// thousand, and one wake-up for nobody costs less than a move in the queue for each of them.
    @inline(__always)
    func remove(_ connection: Connection) {
        disarm(connection)
        connection.deadline.wakeUpNs = .max
    }

    /// When something may be due, nil when nothing is armed.
    var nextNs: UInt64? { queue.nextNs }

    /// Takes one deadline that is due.
    /// - Parameter occupant: The connection in a slot.
    func popExpired<Occupant: Connection>(
        nowNs: UInt64, _ occupant: (_ slot: Int) -> Occupant?
    ) -> (connection: Occupant, kind: Kind)? {
        while let slot = queue.due(nowNs: nowNs) {
            guard let connection = occupant(slot) else {
                queue.forget(slot)
                continue
            }
            let atNs = connection.deadline.atNs
            connection.deadline.wakeUpNs = atNs > nowNs ? atNs : .max
            guard atNs != .max, atNs <= nowNs else {
                atNs == .max ? queue.forget(slot) : queue.wake(slot, atNs: atNs)
                continue
            }
            queue.forget(slot)
            guard let kind = armed(connection) else { preconditionFailure("a deadline of no kind") }
            disarm(connection)
            return (connection, kind)
        }
        return nil
    }

    @inline(never)
    private func wakeEarlier(_ connection: Connection) {
        connection.deadline.wakeUpNs = queue.wake(connection.slot, by: connection.deadline.atNs)
    }
}

/// What one connection waits for; part of it, so that arming touches nothing else.
struct Deadline {
    static let noKind: UInt8 = 0xFF

    var kind = Deadline.noKind
    /// Monotonic ns; `.max` when nothing is armed.
    var atNs = UInt64.max
    /// When the queue will look at it, `.max` when it will not.
    var wakeUpNs = UInt64.max
}
