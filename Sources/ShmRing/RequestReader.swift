import CShims

/// Reads one request record, believing nothing it finds there: what `init` lets through can be used without
/// another check.
///
/// The header is copied once, so a writer that goes on writing can change texts and nothing else.
public struct RequestReader: ~Escapable {
    /// Longest text; a writer sends a longer one as a tree.
    public static let textBytesMax = TreeWriter.stringBytesMax

    public let bytes: RawSpan
    public let header: lb_request_header
    /// Byte ranges of the record, each followed by LB_REQUEST_TAIL_BYTES at least.
    public let method: Range<Int>
    public let url: Range<Int>
    public let host: Range<Int>
    /// Empty: none.
    public let userAgent: Range<Int>
    public let peerIP: Range<Int>
    public let backend: Range<Int>
    public let strategy: Range<Int>

    /// - Parameter bytes: A whole record as `SegmentConsumer.next` gives it.
    @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        let headerBytes = MemoryLayout<lb_request_header>.size
        guard bytes.byteCount >= headerBytes + Int(LB_REQUEST_TAIL_BYTES) else { return nil }
        let header = unsafe bytes.unsafeLoadUnaligned(as: lb_request_header.self)
        guard header.record.kind == UInt16(LB_RECORD_REQUEST), Self.isSound(header) else { return nil }
        self.bytes = bytes
        self.header = header
        method = headerBytes..<(headerBytes + Int(header.method_bytes))
        url = method.upperBound..<(method.upperBound + Int(header.url_bytes))
        host = url.upperBound..<(url.upperBound + Int(header.host_bytes))
        userAgent = host.upperBound..<(host.upperBound + Int(header.user_agent_bytes))
        peerIP = userAgent.upperBound..<(userAgent.upperBound + Int(header.peer_ip_bytes))
        backend = peerIP.upperBound..<(peerIP.upperBound + Int(header.backend_bytes))
        strategy = backend.upperBound..<(backend.upperBound + Int(header.strategy_bytes))
        guard strategy.upperBound <= bytes.byteCount - Int(LB_REQUEST_TAIL_BYTES) else { return nil }
    }

    /// Whether the backend was spoken to in HTTP/2.
    public var isHTTP2: Bool { Self.isHTTP2(header) }

    /// Spans that such a request has.
    public var spanCount: Int { Self.spanCount(header) }

    static func spanCount(_ header: borrowing lb_request_header) -> Int { isHTTP2(header) ? 5 : 6 }

    private static func isHTTP2(_ header: borrowing lb_request_header) -> Bool {
        header.backend_flavor == UInt16(LB_FLAVOR_2)
    }

    /// Whether a record is one of this kind.
    public static func isRequest(_ bytes: RawSpan) -> Bool {
        guard bytes.byteCount >= MemoryLayout<lb_record_header>.size else { return false }
        return unsafe bytes.unsafeLoadUnaligned(as: lb_record_header.self).kind == UInt16(LB_RECORD_REQUEST)
    }

    private static func isSound(_ header: borrowing lb_request_header) -> Bool {
        guard header.trace_id_high | header.trace_id_low != 0, hasEveryID(header), isInOrder(header),
            header.body_type <= UInt8(LB_BODY_UNTIL_CLOSE), header.http_flavor <= UInt8(LB_FLAVOR_2),
            header.has_request_bytes <= 1, isFlavorKnown(header.backend_flavor), isLinkSound(header)
        else { return false }
        return areTextsShort(header)
    }

    private static func isFlavorKnown(_ flavor: UInt16) -> Bool { flavor == 0 || flavor == UInt16(LB_FLAVOR_2) }

    /// A link has every id, or there is none.
    private static func isLinkSound(_ header: borrowing lb_request_header) -> Bool {
        guard header.link_span_id != 0 else { return true }
        return header.link_trace_id_high | header.link_trace_id_low != 0
    }

    private static func hasEveryID(_ header: borrowing lb_request_header) -> Bool {
        guard header.root_span_id != 0, header.selection_span_id != 0, header.connection_span_id != 0,
            header.acquire_span_id != 0, header.request_span_id != 0, header.streaming_span_id != 0
        else { return false }
        return true
    }

    /// No span ends before it starts.
    private static func isInOrder(_ header: borrowing lb_request_header) -> Bool {
        guard header.selection_start_ns <= header.selection_end_ns,
            header.selection_end_ns <= header.connection_end_ns, header.selection_end_ns <= header.acquire_end_ns,
            header.streaming_start_ns <= header.end_ns
        else { return false }
        if isHTTP2(header) { return header.selection_end_ns <= header.end_ns }
        return header.request_start_ns <= header.request_end_ns
    }

    private static func areTextsShort(_ header: borrowing lb_request_header) -> Bool {
        let longest = max(
            max(header.method_bytes, header.url_bytes, header.host_bytes),
            max(header.user_agent_bytes, header.peer_ip_bytes), max(header.backend_bytes, header.strategy_bytes))
        return Int(longest) <= textBytesMax
    }
}
