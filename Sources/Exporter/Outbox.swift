/// Closed batches on their way: waiting to be sent (again), or in flight in one of the transport's slots.
///
///     add ──► waiting ──nextPost──► in flight ──settled──► gone
///                ▲                      │
///                └───────failed─────────┘
///
/// Bounded: it takes a new batch only while fewer than `capacity` are in it, whatever their state, so a
/// collector that is down costs a fixed amount of memory. The oldest goes first.
struct Outbox {
    struct Parcel {
        /// The batch's number in the `DeliveryLedger`.
        let id: UInt64
        let body: PostBody
        let spans: Int
        let trees: Int
    }

    private struct Flight {
        let parcel: Parcel
        let startedNs: UInt64
    }

    private var waiting: [Parcel] = []
    private var flights: [Flight?]

    init(capacity: Int) {
        flights = Array(repeating: nil, count: capacity)
    }

    var inFlightCount: Int { flights.count { $0 != nil } }
    var isEmpty: Bool { waiting.isEmpty && inFlightCount == 0 }
    var hasRoom: Bool { waiting.count + inFlightCount < flights.count }
    var hasWaiting: Bool { !waiting.isEmpty }
    /// Spans and trees that are neither delivered nor dropped.
    var unsettled: (spans: Int, trees: Int) {
        let all = waiting + flights.compactMap { $0?.parcel }
        return (all.reduce(0) { $0 + $1.spans }, all.reduce(0) { $0 + $1.trees })
    }

    mutating func add(_ parcel: Parcel) {
        precondition(hasRoom, "a batch too many")
        waiting.append(parcel)
    }

    /// Takes the oldest batch that waits and puts it into a free slot.
    mutating func nextPost(nowNs: UInt64) -> (slot: Int, parcel: Parcel)? {
        guard let slot = flights.firstIndex(where: { $0 == nil }), !waiting.isEmpty else { return nil }
        let parcel = waiting.removeFirst()
        flights[slot] = Flight(parcel: parcel, startedNs: nowNs)
        return (slot, parcel)
    }

    /// The batch in a slot was delivered or is dropped.
    mutating func settled(slot: Int) -> Parcel {
        takeFlight(slot).parcel
    }

    /// The batch in a slot must be sent again.
    /// - Returns: When the attempt that failed began.
    mutating func failed(slot: Int) -> UInt64 {
        let flight = takeFlight(slot)
        let place = waiting.firstIndex { $0.id > flight.parcel.id } ?? waiting.endIndex
        waiting.insert(flight.parcel, at: place)
        return flight.startedNs
    }

    private mutating func takeFlight(_ slot: Int) -> Flight {
        guard let flight = flights[slot] else { preconditionFailure("nothing in flight in slot \(slot)") }
        flights[slot] = nil
        return flight
    }
}
