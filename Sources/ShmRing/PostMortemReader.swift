import CShims
import Glibc

/// How one process that filled a worker slot ended, as the master noted it.
public struct WorkerDeath: Equatable, Sendable {
    public let slot: Int
    public let incarnation: UInt32
    /// 0: it exited by itself.
    public let signal: Int32
    public let unixNs: UInt64
    /// Where its ring's records ended.
    let ringTail: UInt64
}

/// A request that was in flight in a worker that died, as far as its entry makes sense.
public struct InterruptedRequest: Sendable {
    public let traceID: (high: UInt64, low: UInt64)
    public let spanID: UInt64
    /// 0: the caller sent none.
    public let parentSpanID: UInt64
    public let traceFlags: UInt8
    /// Not after the death.
    public let startUnixNs: UInt64
    public let lastPhase: InflightTable.Phase
    /// The client came by https.
    public let isSecure: Bool
    public let method: [UInt8]
    public let authority: [UInt8]
    public let path: [UInt8]
    /// Nil when none was chosen.
    public let backend: (index: Int, host: [UInt8])?
    /// Nil when nothing had gone upstream.
    public let attempt: Attempt?

    public struct Attempt: Sendable {
        public let spanID: UInt64
        /// Counted from the request's start, not after the death.
        public let startNs: UInt64
        /// The response that had begun.
        public let response: (status: Int, startNs: UInt64)?
        /// The backend was spoken to in HTTP/2.
        public let isHTTP2: Bool
        /// The connection that it used and where that one's trace is, nil when it has none.
        public let connection: (number: UInt64, target: LinkTarget)?
    }
}

/// The exporter's view of dead workers' requests. Believes nothing that it reads: sizes are checked, times put in
/// order, and what cannot be a request is passed over.
///
///     nextDeath ──► take(0), take(1), … each becomes a tree, then forget ──► settle
///
/// An exporter that dies in between leaves the rest to its successor; what it had published but not forgotten is
/// published again, with the same ids.
@safe
public struct PostMortemReader {
    private let segment: SpanSegment
    /// Entries that could not be requests.
    public private(set) var malformedCount: UInt64 = 0

    init(segment: SpanSegment) {
        self.segment = segment
    }

    /// A death that nobody has dealt with, nil when there is none.
    public func nextDeath() -> WorkerDeath? {
        for slot in 0..<segment.ringCount {
            for record in 0..<Int(LB_DEATHS) {
                if let death = death(slot: slot, record: record) { return death }
            }
        }
        return nil
    }

    /// How many entries of the death's table may hold a request.
    public func entryCount(of death: WorkerDeath) -> Int {
        let header = unsafe segment.inflightHeader(slot: death.slot, incarnation: death.incarnation)
        return unsafe Int(min(lb_load_acquire(&header.pointee.used), UInt64(LB_INFLIGHT_ENTRIES)))
    }

    /// The request that an entry holds, nil when it holds none of the dead worker's that is not told already.
    public mutating func take(_ index: Int, of death: WorkerDeath) -> InterruptedRequest? {
        guard let copy = copy(index, of: death) else { return nil }
        guard let request = InterruptedRequest(copy, death, connectionIDs(of: death)) else {
            malformedCount += 1
            return nil
        }
        return Self.wasPublished(copy, request, death) ? nil : request
    }

    /// What `take` will find.
    public func peek(_ index: Int, of death: WorkerDeath) -> InterruptedRequest? {
        guard let copy = copy(index, of: death),
            let request = InterruptedRequest(copy, death, connectionIDs(of: death)),
            !Self.wasPublished(copy, request, death)
        else { return nil }
        return request
    }

    /// An entry that is in use by the dead worker, nil when it is not.
    private func copy(_ index: Int, of death: WorkerDeath) -> lb_inflight_entry? {
        var copy = lb_inflight_entry()
        guard unsafe lb_copy_inflight_entry(entry(index, of: death), &copy) != 0, copy.word >> 32 == death.incarnation,
            copy.word & 0xffff_ffff != UInt64(LB_INFLIGHT_FREE)
        else { return nil }
        return copy
    }

    /// Where the traces of the dead worker's connections are.
    private func connectionIDs(of death: WorkerDeath) -> ConnectionTraceIDs? {
        let header = unsafe segment.inflightHeader(slot: death.slot, incarnation: death.incarnation)
        let (high, low, span) = unsafe (
            header.pointee.connection_high_seed, header.pointee.connection_low_seed,
            header.pointee.connection_span_seed
        )
        return high | low | span == 0 ? nil : ConnectionTraceIDs(highSeed: high, lowSeed: low, spanSeed: span)
    }

    /// The request of an entry is told: nobody is to tell it again.
    public func forget(_ index: Int, of death: WorkerDeath) {
        let entry = unsafe entry(index, of: death)
        let word = unsafe lb_load_acquire(&entry.pointee.word)
        guard word >> 32 == death.incarnation else { return }
        _ = unsafe lb_exchange_word(&entry.pointee.word, word, 0)
    }

    /// The death is dealt with.
    public func settle(_ death: WorkerDeath) {
        let noted = UInt64(death.incarnation) << 32 | UInt64(LB_DEATH_NOTED)
        let handled = UInt64(death.incarnation) << 32 | UInt64(LB_DEATH_HANDLED)
        _ = unsafe lb_exchange_word(
            &segment.deathRecord(slot: death.slot, incarnation: death.incarnation).pointee.word, noted, handled)
    }

    private func death(slot: Int, record number: Int) -> WorkerDeath? {
        let record = unsafe segment.deathRecord(slot: slot, incarnation: UInt32(number))
        let word = unsafe lb_load_acquire(&record.pointee.word)
        let incarnation = UInt32(truncatingIfNeeded: word >> 32)
        guard word & 0xffff_ffff == UInt64(LB_DEATH_NOTED), Int(incarnation) % Int(LB_DEATHS) == number
        else { return nil }
        return unsafe WorkerDeath(
            slot: slot, incarnation: incarnation, signal: record.pointee.signal, unixNs: record.pointee.unix_ns,
            ringTail: record.pointee.ring_tail)
    }

    private func entry(_ index: Int, of death: WorkerDeath) -> UnsafeMutablePointer<lb_inflight_entry> {
        precondition(index >= 0 && index < Int(LB_INFLIGHT_ENTRIES), "in-flight entry \(index)")
        return unsafe segment.inflightEntries(slot: death.slot, incarnation: death.incarnation) + index
    }

    /// The worker may have died between its tree's publication and the clearing of its entry.
    private static func wasPublished(
        _ entry: lb_inflight_entry, _ request: InterruptedRequest, _ death: WorkerDeath
    ) -> Bool {
        request.lastPhase == .publishing && Int64(bitPattern: death.ringTail &- entry.publish_tail) > 0
    }
}

extension InterruptedRequest {
    /// Nil when the entry cannot be a request.
    fileprivate init?(_ entry: lb_inflight_entry, _ death: WorkerDeath, _ ids: ConnectionTraceIDs?) {
        guard let phase = InflightTable.Phase(rawValue: entry.word & 0xffff_ffff), entry.span_id != 0,
            entry.trace_id_high | entry.trace_id_low != 0, entry.method_bytes <= LB_INFLIGHT_METHOD_BYTES,
            entry.backend_bytes <= LB_INFLIGHT_BACKEND_BYTES, entry.authority_bytes <= LB_INFLIGHT_AUTHORITY_BYTES,
            entry.path_bytes <= LB_INFLIGHT_PATH_BYTES
        else { return nil }
        traceID = (entry.trace_id_high, entry.trace_id_low)
        spanID = entry.span_id
        parentSpanID = entry.parent_span_id
        traceFlags = entry.trace_flags
        startUnixNs = min(entry.start_unix_ns, death.unixNs)
        lastPhase = phase
        isSecure = entry.is_secure != 0
        method = Self.bytes(of: entry.method, count: Int(entry.method_bytes))
        authority = Self.bytes(of: entry.authority, count: Int(entry.authority_bytes))
        path = Self.bytes(of: entry.path, count: Int(entry.path_bytes))
        backend =
            entry.backend >= 0
            ? (Int(entry.backend), Self.bytes(of: entry.backend_host, count: Int(entry.backend_bytes))) : nil
        attempt = Attempt(entry, lifetimeNs: death.unixNs - startUnixNs, ids)
    }

    /// The first bytes of one of C's arrays.
    private static func bytes<Array>(of array: Array, count: Int) -> [UInt8] {
        unsafe withUnsafeBytes(of: array) { unsafe [UInt8]($0.prefix(count)) }
    }
}

extension InterruptedRequest.Attempt {
    /// Nil when nothing had gone upstream.
    fileprivate init?(_ entry: lb_inflight_entry, lifetimeNs: UInt64, _ ids: ConnectionTraceIDs?) {
        guard entry.attempt_span_id != 0 else { return nil }
        spanID = entry.attempt_span_id
        startNs = min(entry.attempt_start_ns, lifetimeNs)
        isHTTP2 = entry.is_http2 != 0
        connection = entry.connection == 0 ? nil : ids.map { (entry.connection, $0[entry.connection]) }
        let hasResponse = (100...999).contains(entry.status)
        response = hasResponse ? (Int(entry.status), min(max(entry.response_start_ns, startNs), lifetimeNs)) : nil
    }
}
