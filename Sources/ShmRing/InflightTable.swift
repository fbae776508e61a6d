import CShims
import Glibc

/// Where a worker notes the requests that it is serving, so that somebody can tell what became of them should it die.
///
///     begin ──► attempt ──► response ──► publishing ──► (the tree is in the ring) ──► end
///       each: plain stores, then the entry's word, release; no system call, nothing waits
///
/// An entry belongs to whoever took its number until it is given back, over many requests. What a dead process left is
/// read by `PostMortemReader`. Exactly one process at a time holds a table of a given slot and incarnation.
@safe
public final class InflightTable {
    /// Where a request stands. The raw value is the low half of an entry's word.
    public enum Phase: UInt64, CaseIterable, Sendable {
        case waitingForConnection = 1
        case connecting
        case awaitingResponse
        case streamingResponse
        case tunnel
        case answering
        case publishing

        /// As `worker.last_phase` says it.
        public var text: StaticString {
            switch self {
            case .waitingForConnection: "waiting_for_connection"
            case .connecting: "connecting"
            case .awaitingResponse: "awaiting_response"
            case .streamingResponse: "streaming_response"
            case .tunnel: "tunnel"
            case .answering: "answering"
            case .publishing: "finishing"
            }
        }
    }

    /// Who a request is in its trace, and when it began.
    public struct Identity: Sendable {
        public var traceIDHigh: UInt64
        public var traceIDLow: UInt64
        public var spanID: UInt64
        public var parentSpanID: UInt64
        public var flags: UInt8
        public var startUnixNs: UInt64
        /// The client came by https.
        public var isSecure: Bool

        public init(
            traceIDHigh: UInt64, traceIDLow: UInt64, spanID: UInt64, parentSpanID: UInt64, flags: UInt8,
            startUnixNs: UInt64, isSecure: Bool = false
        ) {
            self.traceIDHigh = traceIDHigh
            self.traceIDLow = traceIDLow
            self.spanID = spanID
            self.parentSpanID = parentSpanID
            self.flags = flags
            self.startUnixNs = startUnixNs
            self.isSecure = isSecure
        }
    }

    private let segment: SpanSegment
    private let header: UnsafeMutablePointer<lb_inflight_header>
    private let entries: UnsafeMutablePointer<lb_inflight_entry>
    /// The high half of every word that this process stores.
    private let owner: UInt64
    private var used = 0
    private var free: ContiguousArray<Int32> = []

    init(segment: SpanSegment, slot: Int, incarnation: UInt32) {
        self.segment = segment
        unsafe header = segment.inflightHeader(slot: slot, incarnation: incarnation)
        unsafe entries = segment.inflightEntries(slot: slot, incarnation: incarnation)
        owner = UInt64(incarnation) << 32
        // Entries behind those in use were never touched, and their memory need not be.
        let left = unsafe min(lb_load_acquire(&header.pointee.used), UInt64(LB_INFLIGHT_ENTRIES))
        for index in 0..<Int(left) { unsafe lb_store_release(&entries[index].word, 0) }
        unsafe lb_store_release(&header.pointee.used, 0)
        traces(nil)
    }

    /// Connections have traces with these ids.
    public func traces(_ connections: ConnectionTraceIDs?) {
        unsafe header.pointee.connection_high_seed = connections?.highSeed ?? 0
        unsafe header.pointee.connection_low_seed = connections?.lowSeed ?? 0
        unsafe header.pointee.connection_span_seed = connections?.spanSeed ?? 0
    }

    /// Takes an entry for any number of requests, one after the other.
    /// - Returns: Its number, or -1 when all are taken: then these requests are not noted.
    public func take() -> Int32 {
        if let index = free.popLast() { return index }
        guard used < Int(LB_INFLIGHT_ENTRIES) else { return -1 }
        used += 1
        unsafe lb_store_release(&header.pointee.used, UInt64(used))
        return Int32(used - 1)
    }

    /// Gives a number back that `take` returned.
    public func giveBack(_ index: Int32) {
        guard index >= 0 else { return }
        end(index)
        free.append(index)
    }

    /// A request begins.
    /// - Parameters:
    ///   - method: As in the request.
    ///   - authority: Without user information; empty when there is none.
    ///   - path: Without a query, which may hold secrets.
    public func begin(
        _ index: Int32, _ identity: Identity, method: Span<UInt8>, authority: Span<UInt8>, path: Span<UInt8>
    ) {
        guard let entry = unsafe entry(index) else { return }
        unsafe entry.pointee.trace_id_high = identity.traceIDHigh
        unsafe entry.pointee.trace_id_low = identity.traceIDLow
        unsafe entry.pointee.span_id = identity.spanID
        unsafe entry.pointee.parent_span_id = identity.parentSpanID
        unsafe entry.pointee.start_unix_ns = identity.startUnixNs
        unsafe entry.pointee.trace_flags = identity.flags
        unsafe entry.pointee.is_secure = identity.isSecure ? 1 : 0
        unsafe entry.pointee.attempt_span_id = 0
        unsafe entry.pointee.backend = -1
        unsafe entry.pointee.backend_bytes = 0
        unsafe entry.pointee.status = 0
        let raw = UnsafeMutableRawPointer(entry)
        unsafe entry.pointee.method_bytes = UInt8(
            Self.copy(method, to: raw + Self.methodOffset, bytesMax: Int(LB_INFLIGHT_METHOD_BYTES)))
        unsafe entry.pointee.authority_bytes = UInt8(
            Self.copy(authority, to: raw + Self.authorityOffset, bytesMax: Int(LB_INFLIGHT_AUTHORITY_BYTES)))
        unsafe entry.pointee.path_bytes = UInt16(
            Self.copy(path, to: raw + Self.pathOffset, bytesMax: Int(LB_INFLIGHT_PATH_BYTES)))
        unsafe lb_store_release(&entry.pointee.word, owner | Phase.waitingForConnection.rawValue)
    }

    /// A connection to a backend is being made, for an attempt of which nothing has gone upstream.
    public func connecting(_ index: Int32, backend: Int, _ host: String) {
        guard let entry = unsafe entry(index) else { return }
        unsafe entry.pointee.attempt_span_id = 0
        unsafe setBackend(entry, backend, host)
        unsafe lb_store_release(&entry.pointee.word, owner | Phase.connecting.rawValue)
    }

    /// The request goes upstream.
    /// - Parameters:
    ///   - spanID: Of this attempt's span, which the backend is told.
    ///   - startNs: When, counted from the request's start.
    ///   - isHTTP2: What the backend is spoken to in.
    ///   - connection: Its number.
    public func attempt(
        _ index: Int32, spanID: UInt64, startNs: UInt64, backend: Int, _ host: String, isHTTP2: Bool = false,
        connection: UInt64 = 0
    ) {
        guard let entry = unsafe entry(index) else { return }
        unsafe setBackend(entry, backend, host)
        unsafe entry.pointee.attempt_start_ns = startNs
        unsafe entry.pointee.is_http2 = isHTTP2 ? 1 : 0
        unsafe entry.pointee.connection = connection
        unsafe entry.pointee.attempt_span_id = spanID
        unsafe lb_store_release(&entry.pointee.word, owner | Phase.awaitingResponse.rawValue)
    }

    /// A final response, or a tunnel, has begun.
    public func response(_ index: Int32, status: Int, startNs: UInt64, _ phase: Phase) {
        guard let entry = unsafe entry(index) else { return }
        unsafe entry.pointee.response_start_ns = startNs
        unsafe entry.pointee.status = UInt16(truncatingIfNeeded: status)
        unsafe lb_store_release(&entry.pointee.word, owner | phase.rawValue)
    }

    /// The request stands elsewhere now. Of an entry without a request nothing is said.
    public func moved(_ index: Int32, to phase: Phase) {
        guard let entry = unsafe entry(index), unsafe entry.pointee.word != 0 else { return }
        unsafe lb_store_release(&entry.pointee.word, owner | phase.rawValue)
    }

    /// The next thing that the producer publishes is this request's tree.
    public func publishing(_ index: Int32, _ producer: borrowing RingProducer) {
        guard let entry = unsafe entry(index), unsafe entry.pointee.word != 0 else { return }
        unsafe entry.pointee.publish_tail = producer.position
        unsafe lb_store_release(&entry.pointee.word, owner | Phase.publishing.rawValue)
    }

    /// The request is over and told.
    public func end(_ index: Int32) {
        guard let entry = unsafe entry(index) else { return }
        unsafe lb_store_release(&entry.pointee.word, 0)
    }

    private static let methodOffset = MemoryLayout<lb_inflight_entry>.offset(of: \.method)!
    private static let backendOffset = MemoryLayout<lb_inflight_entry>.offset(of: \.backend_host)!
    private static let authorityOffset = MemoryLayout<lb_inflight_entry>.offset(of: \.authority)!
    private static let pathOffset = MemoryLayout<lb_inflight_entry>.offset(of: \.path)!

    @inline(__always)
    private func entry(_ index: Int32) -> UnsafeMutablePointer<lb_inflight_entry>? {
        guard index >= 0 else { return nil }
        precondition(index < LB_INFLIGHT_ENTRIES, "in-flight entry \(index)")
        return unsafe entries + Int(index)
    }

    /// Done once for each attempt: what was said of the same backend stands.
    private func setBackend(_ entry: UnsafeMutablePointer<lb_inflight_entry>, _ backend: Int, _ host: String) {
        guard unsafe entry.pointee.backend != Int32(truncatingIfNeeded: backend) else { return }
        let count = unsafe Self.copy(
            host.utf8.span, to: UnsafeMutableRawPointer(entry) + Self.backendOffset,
            bytesMax: Int(LB_INFLIGHT_BACKEND_BYTES))
        unsafe entry.pointee.backend_bytes = UInt8(count)
        unsafe entry.pointee.backend = Int32(truncatingIfNeeded: backend)
    }

    /// - Returns: How many bytes were copied.
    private static func copy(_ text: Span<UInt8>, to target: UnsafeMutableRawPointer, bytesMax: Int) -> Int {
        let count = min(text.count, bytesMax)
        unsafe text.withUnsafeBufferPointer { source in
            guard count > 0, let from = source.baseAddress else { return }
            unsafe target.copyMemory(from: from, byteCount: count)
        }
        return count
    }
}
