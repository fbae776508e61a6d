import CShims

/// Makes the tree that a request record stands for, in memory of its own: the one place that knows what spans and
/// attributes those are.
///
/// It is what `Tracer` would write as a tree, attribute by attribute; a test holds the two together.
@safe
public final class RequestExpander {
    /// More than six spans with every text at its longest.
    private static let treeBytesMax = 24 * 1024

    private let memory: UnsafeMutableRawPointer

    public init() {
        unsafe memory = .allocate(byteCount: Self.treeBytesMax, alignment: 16)
    }

    deinit {
        unsafe memory.deallocate()
    }

    /// Lends the tree of a record: the record itself when it is one.
    /// - Returns: What `body` returned; nil for a request record that contradicts itself.
    public func withTree<R>(_ record: RawSpan, _ body: (RawSpan) -> R?) -> R? {
        guard RequestReader.isRequest(record) else { return body(record) }
        guard let request = RequestReader(record) else { return nil }
        var tree = unsafe TreeWriter(start: memory, capacityBytes: Self.treeBytesMax)
        Self.write(request, to: &tree)
        guard let bytes = tree.finish() else { return nil }
        return unsafe body(UnsafeRawBufferPointer(start: memory, count: bytes).bytes)
    }

    private static func write(_ request: borrowing RequestReader, to tree: inout TreeWriter) {
        let facts = request.header
        let noState = RawSpan()
        tree.begin(
            traceID: (facts.trace_id_high, facts.trace_id_low), parentSpanID: facts.parent_span_id,
            traceFlags: facts.trace_flags, baseUnixNs: facts.base_unix_ns, traceState: text(noState, 0..<0))
        writeRoot(request, facts, to: &tree)
        writeSelection(request, facts, to: &tree)
        if request.isHTTP2 { return writeHTTP2Attempt(request, facts, to: &tree) }
        writeConnection(request, facts, to: &tree)
        writeBackendRequest(request, facts, to: &tree)
        writeStreaming(facts, to: &tree)
    }

    private static func writeRoot(
        _ request: borrowing RequestReader, _ facts: lb_request_header, to tree: inout TreeWriter
    ) {
        let bytes = request.bytes
        tree.beginSpan(
            .proxyRequest, kind: .server, id: facts.root_span_id, parent: nil, startOffsetNs: 0,
            endOffsetNs: UInt64(facts.end_ns), status: facts.status >= 500 ? .error : .unset)
        tree.attribute(.httpMethod, text: text(bytes, request.method))
        tree.attribute(.httpURL, text: text(bytes, request.url))
        if let flavor = HTTPFlavor(rawValue: facts.http_flavor) { tree.attribute(.httpFlavor, flavor.text) }
        tree.attribute(.httpHost, text: text(bytes, request.host))
        if !request.userAgent.isEmpty { tree.attribute(.httpUserAgent, text: text(bytes, request.userAgent)) }
        if facts.has_request_bytes != 0 { tree.attribute(.httpRequestContentLength, Int(facts.request_bytes)) }
        tree.attribute(.httpStatusCode, Int(facts.status))
        tree.attribute(.backendID, Int(facts.backend_index))
        tree.attribute(.backendHost, text: text(bytes, request.backend))
        tree.attribute(.netPeerIP, text: text(bytes, request.peerIP))
        tree.attribute(.netPeerPort, Int(facts.peer_port))
        tree.attribute(.httpResponseContentLength, Int(facts.response_bytes))
        tree.attribute(.lbWorker, Int(facts.worker))
        tree.attribute(.lbGeneration, Int(facts.generation))
    }

    private static func writeSelection(
        _ request: borrowing RequestReader, _ facts: lb_request_header, to tree: inout TreeWriter
    ) {
        tree.beginSpan(
            .backendSelection, kind: .internal, id: facts.selection_span_id, parent: 0,
            startOffsetNs: UInt64(facts.selection_start_ns), endOffsetNs: UInt64(facts.selection_end_ns))
        tree.attribute(.lbStrategy, text: text(request.bytes, request.strategy))
        tree.attribute(.lbBackendCount, Int(facts.backend_count))
        tree.attribute(.lbHealthyCount, Int(facts.healthy_count))
        tree.attribute(.lbSelectedBackend, text: text(request.bytes, request.backend))
    }

    private static func writeConnection(
        _ request: borrowing RequestReader, _ facts: lb_request_header, to tree: inout TreeWriter
    ) {
        let start = UInt64(facts.selection_end_ns)
        let connection = tree.beginSpan(
            .backendConnection, kind: .internal, id: facts.connection_span_id, parent: 0, startOffsetNs: start,
            endOffsetNs: UInt64(facts.connection_end_ns))
        tree.attribute(.backendHost, text: text(request.bytes, request.backend))
        tree.attribute(.connectionFromPool, true)
        let name = ConnectionName(worker: facts.worker, number: facts.connection_number)
        tree.attribute(.connectionID, text: name.bytes)
        writeAcquire(facts, parent: connection, to: &tree)
    }

    private static func writeAcquire(_ facts: lb_request_header, parent: Int, to tree: inout TreeWriter) {
        tree.beginSpan(
            .poolAcquire, kind: .internal, id: facts.acquire_span_id, parent: parent,
            startOffsetNs: UInt64(facts.selection_end_ns), endOffsetNs: UInt64(facts.acquire_end_ns))
        tree.attribute(.poolOutcome, "reused" as StaticString)
        tree.attribute(.poolIdleCount, Int(facts.idle_count))
        tree.attribute(.poolActiveCount, Int(facts.active_count))
    }

    private static func writeBackendRequest(
        _ request: borrowing RequestReader, _ facts: lb_request_header, to tree: inout TreeWriter
    ) {
        tree.beginSpan(
            .backendRequest, kind: .client, id: facts.request_span_id, parent: 0,
            startOffsetNs: UInt64(facts.request_start_ns), endOffsetNs: UInt64(facts.request_end_ns),
            status: facts.status >= 400 ? .error : .unset)
        tree.attribute(.httpMethod, text: text(request.bytes, request.method))
        tree.attribute(.httpURL, text: text(request.bytes, request.url))
        tree.attribute(.httpFlavor, "1.1" as StaticString)
        tree.attribute(.httpStatusCode, Int(facts.status))
        writeLink(facts, to: &tree)
    }

    private static func writeLink(_ facts: lb_request_header, to tree: inout TreeWriter) {
        guard facts.link_span_id != 0 else { return }
        let target = LinkTarget(
            traceIDHigh: facts.link_trace_id_high, traceIDLow: facts.link_trace_id_low, spanID: facts.link_span_id)
        tree.link(to: target, connection: ConnectionName(worker: facts.worker, number: facts.connection_number))
    }

    private static func writeStreaming(_ facts: lb_request_header, to tree: inout TreeWriter) {
        tree.beginSpan(
            .responseStreaming, kind: .internal, id: facts.streaming_span_id, parent: 0,
            startOffsetNs: UInt64(facts.streaming_start_ns), endOffsetNs: UInt64(facts.end_ns))
        tree.attribute(.httpBodyType, bodyType(facts.body_type))
        if facts.body_type == UInt8(LB_BODY_LENGTH) {
            tree.attribute(.httpBodyExpectedLength, Int(facts.body_expected_bytes))
        }
        tree.attribute(.httpBodyBytesTransferred, Int(facts.body_bytes))
        tree.attribute(.httpBodyHadError, false)
    }

    /// One span with all of the attempt below it.
    private static func writeHTTP2Attempt(
        _ request: borrowing RequestReader, _ facts: lb_request_header, to tree: inout TreeWriter
    ) {
        let span = tree.beginSpan(
            .backendRequestH2, kind: .client, id: facts.request_span_id, parent: 0,
            startOffsetNs: UInt64(facts.selection_end_ns), endOffsetNs: UInt64(facts.end_ns),
            status: facts.status >= 400 ? .error : .unset)
        tree.attribute(.httpMethod, text: text(request.bytes, request.method))
        tree.attribute(.httpURL, text: text(request.bytes, request.url))
        tree.attribute(.httpStatusCode, Int(facts.status))
        tree.attribute(.httpResponseContentLength, Int(facts.response_bytes))
        tree.attribute(.h2RetryCount, 0)
        tree.attribute(.h2StreamID, Int(facts.request_start_ns))
        tree.attribute(.h2StreamsActive, Int(facts.request_end_ns))
        let name = ConnectionName(worker: facts.worker, number: facts.connection_number)
        tree.attribute(.connectionID, text: name.bytes)
        tree.attribute(.connectionFromPool, true)
        writeLink(facts, to: &tree)
        writeAcquire(facts, parent: span, to: &tree)
        writeHTTP2Streaming(facts, parent: span, to: &tree)
    }

    private static func writeHTTP2Streaming(_ facts: lb_request_header, parent: Int, to tree: inout TreeWriter) {
        tree.beginSpan(
            .responseStreaming, kind: .internal, id: facts.streaming_span_id, parent: parent,
            startOffsetNs: UInt64(facts.streaming_start_ns), endOffsetNs: UInt64(facts.end_ns))
        tree.attribute(.httpBodyType, "h2_streamed" as StaticString)
        tree.attribute(.httpBodyLength, Int(facts.body_bytes))
        tree.attribute(.httpBodyBytesWritten, Int(facts.body_bytes))
        tree.attribute(.httpBodyHadError, false)
    }

    private static func bodyType(_ number: UInt8) -> StaticString {
        switch Int(number) {
        case Int(LB_BODY_LENGTH): "content_length"
        case Int(LB_BODY_CHUNKED): "chunked"
        case Int(LB_BODY_UNTIL_CLOSE): "until_close"
        default: "none"
        }
    }

    /// Unsafe only in name: every bit pattern is a byte.
    @_lifetime(copy bytes)
    private static func text(_ bytes: RawSpan, _ range: Range<Int>) -> Span<UInt8> {
        unsafe bytes.extracting(range)._unsafeView(as: UInt8.self)
    }
}
