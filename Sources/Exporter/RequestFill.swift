import ShmRing

/// What one request record puts into the gaps of its template, in memory that is used again for each record.
@safe
final class RequestFill {
    struct Text {
        let offset: Int
        let count: Int
    }

    private let words: UnsafeMutablePointer<UInt64>
    let texts: UnsafeMutablePointer<Text>
    private(set) var connection = ConnectionName(worker: 0, number: 0)

    private typealias Word = RequestField.Word

    init() {
        unsafe words = .allocate(capacity: Word.count)
        unsafe words.initialize(repeating: 0, count: Word.count)
        unsafe texts = .allocate(capacity: RequestField.Text.count)
        unsafe texts.initialize(repeating: Text(offset: 0, count: 0), count: RequestField.Text.count)
    }

    deinit {
        unsafe words.deallocate()
        unsafe texts.deallocate()
    }

    func load(_ request: borrowing RequestReader) {
        loadIdentity(request)
        loadSpans(request)
        loadNumbers(request)
        loadTexts(request)
        connection = ConnectionName(worker: request.header.worker, number: request.header.connection_number)
    }

    @inline(__always)
    func word(_ field: Int) -> UInt64 {
        precondition(field >= 0 && field < Word.count)
        return unsafe words[field]
    }

    @inline(__always)
    private func set(_ field: Int, _ word: UInt64) {
        precondition(field >= 0 && field < Word.count)
        unsafe words[field] = word
    }

    private func loadIdentity(_ request: borrowing RequestReader) {
        let hasParent = request.header.parent_span_id != 0
        set(Word.traceHigh, request.header.trace_id_high.bigEndian)
        set(Word.traceLow, request.header.trace_id_low.bigEndian)
        set(Word.parent, request.header.parent_span_id.bigEndian)
        set(Word.linkTraceHigh, request.header.link_trace_id_high.bigEndian)
        set(Word.linkTraceLow, request.header.link_trace_id_low.bigEndian)
        set(Word.linkSpan, request.header.link_span_id.bigEndian)
        let flags = request.header.trace_flags
        set(Word.rootFlags, UInt64(TreeWalk.flags(flags, isChildOfRemote: hasParent)).littleEndian)
        set(Word.childFlags, UInt64(TreeWalk.flags(flags, isChildOfRemote: false)).littleEndian)
    }

    /// The spans stand in the order in which `RequestExpander` writes them.
    private func loadSpans(_ request: borrowing RequestReader) {
        let base = request.header.base_unix_ns
        let selectionEnd = request.header.selection_end_ns
        let end = request.header.end_ns
        set(0, request.header.root_span_id, 0, end, base)
        set(1, request.header.selection_span_id, request.header.selection_start_ns, selectionEnd, base)
        if request.isHTTP2 { return loadHTTP2Spans(request) }
        set(2, request.header.connection_span_id, selectionEnd, request.header.connection_end_ns, base)
        set(3, request.header.acquire_span_id, selectionEnd, request.header.acquire_end_ns, base)
        set(4, request.header.request_span_id, request.header.request_start_ns, request.header.request_end_ns, base)
        set(5, request.header.streaming_span_id, request.header.streaming_start_ns, end, base)
    }

    private func loadHTTP2Spans(_ request: borrowing RequestReader) {
        let base = request.header.base_unix_ns
        let selectionEnd = request.header.selection_end_ns
        let end = request.header.end_ns
        set(2, request.header.request_span_id, selectionEnd, end, base)
        set(3, request.header.acquire_span_id, selectionEnd, request.header.acquire_end_ns, base)
        set(4, request.header.streaming_span_id, request.header.streaming_start_ns, end, base)
        set(Word.streamID, Self.varint(request.header.request_start_ns))
        set(Word.streamsActive, Self.varint(request.header.request_end_ns))
    }

    @inline(__always)
    private func set(_ span: Int, _ id: UInt64, _ start: UInt32, _ end: UInt32, _ baseUnixNs: UInt64) {
        set(Word.ids + span, id.bigEndian)
        set(Word.starts + span, TreeWalk.sum(baseUnixNs, UInt64(start)).littleEndian)
        set(Word.ends + span, TreeWalk.sum(baseUnixNs, UInt64(end)).littleEndian)
    }

    private func loadNumbers(_ request: borrowing RequestReader) {
        set(Word.status, Self.varint(request.header.status))
        set(Word.requestBytes, Self.varint(request.header.request_bytes))
        set(Word.responseBytes, Self.varint(request.header.response_bytes))
        set(Word.expectedBytes, Self.varint(request.header.body_expected_bytes))
        set(Word.bodyBytes, Self.varint(request.header.body_bytes))
        set(Word.backend, Self.varint(request.header.backend_index))
        set(Word.backendCount, Self.varint(request.header.backend_count))
        set(Word.healthyCount, Self.varint(request.header.healthy_count))
        set(Word.idleCount, Self.varint(request.header.idle_count))
        set(Word.activeCount, Self.varint(request.header.active_count))
        set(Word.peerPort, Self.varint(request.header.peer_port))
        set(Word.worker, Self.varint(request.header.worker))
        set(Word.generation, Self.varint(request.header.generation))
    }

    private func loadTexts(_ request: borrowing RequestReader) {
        typealias Text = RequestField.Text
        set(text: Text.method, request.method)
        set(text: Text.url, request.url)
        set(text: Text.host, request.host)
        set(text: Text.userAgent, request.userAgent)
        set(text: Text.peerIP, request.peerIP)
        set(text: Text.backend, request.backend)
        set(text: Text.strategy, request.strategy)
    }

    @inline(__always)
    private func set(text field: Int, _ range: Range<Int>) {
        precondition(field >= 0 && field < RequestField.Text.count)
        unsafe texts[field] = Text(offset: range.lowerBound, count: range.count)
    }

    /// A base 128 varint padded to five bytes, the first in the lowest byte.
    @inline(__always)
    static func varint(_ number: UInt32) -> UInt64 {
        let value = UInt64(number)
        let low = (value & 0x7F) | (value << 1 & 0x7F00) | (value << 2 & 0x7F_0000) | (value << 3 & 0x7F00_0000)
        return (low | 0x8080_8080 | (value << 4 & 0xF_0000_0000)).littleEndian
    }
}
