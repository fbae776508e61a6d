import CShims

/// Reads one tree record, believing nothing it finds there.
///
///     init ──► tree facts ──► nextSpan() ──► its attributes, events, links … ──► nil at the end
///
/// A record that contradicts itself gives nil or ends early with `isMalformed` set; no input can make it
/// read outside the record or loop. Each field is read once, so a writer that goes on writing changes
/// values but cannot get past a check.
public struct TreeReader: ~Escapable {
    /// One span's header. Names and kinds are raw: an unknown number is the caller's to judge.
    public struct SpanRecord: Sendable {
        public let id: UInt64
        public let name: UInt8
        public let kind: UInt8
        public let status: UInt8
        /// Index of an earlier span, nil for the tree's root.
        public let parentIndex: Int?
        public let startOffsetNs: UInt64
        public let endOffsetNs: UInt64
        /// The span's attributes.
        public let attributes: AttributeCursor
        /// The span's events, which stand behind its attributes.
        public let eventCount: Int
        /// The span's links, which stand behind its events.
        public let linkCount: Int
        fileprivate let bodyEnd: Int
    }

    /// One event's header.
    public struct EventRecord: Sendable {
        public let name: UInt8
        public let offsetNs: UInt64
        public let attributes: AttributeCursor
    }

    /// One link's header.
    public struct LinkRecord: Sendable {
        /// Nothing of it is checked: ids may be the invalid ones.
        public let target: LinkTarget
        public let attributes: AttributeCursor
    }

    /// Where a run of attributes stands in the record.
    public struct AttributeCursor: Sendable {
        public internal(set) var remaining: Int
        var offset: Int
        let end: Int
    }

    /// A value; texts are byte ranges of the record.
    public enum Value: Sendable, Equatable {
        case bool(Bool)
        case int(Int64)
        case string(Range<Int>)
        /// A run of { UInt32 length, bytes padded to 4 }; see `nextString`.
        case strings(Range<Int>)
    }

    public let bytes: RawSpan
    /// Big-endian halves of the trace id, as in its hexadecimal text.
    public let traceID: (high: UInt64, low: UInt64)
    /// 0: none.
    public let parentSpanID: UInt64
    public let baseUnixNs: UInt64
    public let traceFlags: UInt8
    public let spanCount: Int
    /// Byte range of the W3C trace state.
    public let traceState: Range<Int>
    /// Set when the record contradicted itself; what was read before may still be used.
    public private(set) var isMalformed = false
    private var offset: Int
    private var spansRead = 0

    /// - Parameter bytes: A whole record as `SegmentConsumer.next` gives it.
    @_lifetime(copy bytes)
    public init?(_ bytes: RawSpan) {
        guard let header = Self.load(lb_tree_header.self, from: bytes, at: 0),
            let high = Self.load(UInt64.self, from: bytes, at: 8),
            let low = Self.load(UInt64.self, from: bytes, at: 16)
        else { return nil }
        let stateStart = MemoryLayout<lb_tree_header>.size
        let stateBytes = Int(header.trace_state_bytes)
        guard header.record.kind == UInt16(LB_RECORD_TREE), header.span_count > 0,
            stateBytes <= bytes.byteCount - stateStart,
            (stateBytes + 7) & ~7 <= bytes.byteCount - stateStart
        else { return nil }
        self.bytes = bytes
        traceID = (UInt64(bigEndian: high), UInt64(bigEndian: low))
        parentSpanID = header.parent_span_id
        baseUnixNs = header.base_unix_ns
        traceFlags = header.trace_flags
        spanCount = Int(header.span_count)
        traceState = stateStart..<(stateStart + stateBytes)
        offset = stateStart + ((stateBytes + 7) & ~7)
    }

    /// The next span, or nil at the end of the record.
    @_lifetime(self: copy self)
    public mutating func nextSpan() -> SpanRecord? {
        guard spansRead < spanCount, !isMalformed else { return nil }
        guard let header = Self.load(lb_span_header.self, from: bytes, at: offset) else { return malformed() }
        let bodyStart = offset + MemoryLayout<lb_span_header>.size
        guard Int(header.body_bytes) <= bytes.byteCount - bodyStart, header.body_bytes % 8 == 0,
            header.end_offset_ns >= header.start_offset_ns
        else { return malformed() }
        let hasParent = header.parent_index != UInt8(LB_PARENT_NONE)
        guard hasParent ? Int(header.parent_index) < spansRead : spansRead == 0 else { return malformed() }
        let bodyEnd = bodyStart + Int(header.body_bytes)
        offset = bodyEnd
        spansRead += 1
        return SpanRecord(
            id: header.span_id, name: header.name, kind: header.kind, status: header.status,
            parentIndex: hasParent ? Int(header.parent_index) : nil, startOffsetNs: header.start_offset_ns,
            endOffsetNs: header.end_offset_ns,
            attributes: AttributeCursor(remaining: Int(header.attribute_count), offset: bodyStart, end: bodyEnd),
            eventCount: Int(header.event_count), linkCount: Int(header.link_count), bodyEnd: bodyEnd)
    }

    /// The attribute at the cursor, or nil when there is none left.
    @_lifetime(self: copy self)
    public mutating func nextAttribute(_ cursor: inout AttributeCursor) -> (key: UInt16, value: Value)? {
        guard cursor.remaining > 0 else { return nil }
        guard let header = loadHeader(lb_attribute_header.self, &cursor) else { return malformed() }
        cursor.remaining -= 1
        let room = cursor.end - cursor.offset
        switch Int(header.type) {
        case Int(LB_VALUE_BOOL): return (header.key, .bool(header.value != 0))
        case Int(LB_VALUE_INT32): return (header.key, .int(Int64(Int32(bitPattern: header.value))))
        case Int(LB_VALUE_INT64):
            guard let value = loadHeader(Int64.self, &cursor) else { return malformed() }
            return (header.key, .int(value))
        case Int(LB_VALUE_STRING), Int(LB_VALUE_STRINGS):
            let count = Int(header.value)
            guard count <= room, (count + 7) & ~7 <= room else { return malformed() }
            let range = cursor.offset..<(cursor.offset + count)
            cursor.offset += (count + 7) & ~7
            return (header.key, Int(header.type) == Int(LB_VALUE_STRING) ? .string(range) : .strings(range))
        default: return malformed()
        }
    }

    /// Takes the next text out of a `.strings` range.
    /// - Parameter rest: What is left of the range; moved behind the text.
    public func nextString(_ rest: inout Range<Int>) -> Range<Int>? {
        guard rest.count >= 4, rest.upperBound <= bytes.byteCount,
            let length = Self.load(UInt32.self, from: bytes, at: rest.lowerBound), Int(length) <= rest.count - 4
        else { return nil }
        let start = rest.lowerBound + 4
        let next = min(start + ((Int(length) + 3) & ~3), rest.upperBound)
        rest = next..<rest.upperBound
        return start..<(start + Int(length))
    }

    /// The event behind `cursor`, which must have given all its attributes; moves the cursor to the
    /// event's own attributes.
    /// - Parameters:
    ///   - cursor: The span's cursor, then the one of the event before.
    ///   - span: The span they belong to.
    @_lifetime(self: copy self)
    public mutating func nextEvent(_ cursor: AttributeCursor, of span: SpanRecord) -> EventRecord? {
        var cursor = AttributeCursor(remaining: 0, offset: cursor.offset, end: span.bodyEnd)
        guard cursor.offset < span.bodyEnd else { return malformed() }
        guard let header = loadHeader(lb_event_header.self, &cursor),
            Int(header.body_bytes) <= span.bodyEnd - cursor.offset, header.body_bytes % 8 == 0
        else { return malformed() }
        let attributes = AttributeCursor(
            remaining: Int(header.attribute_count), offset: cursor.offset,
            end: cursor.offset + Int(header.body_bytes))
        return EventRecord(name: header.name, offsetNs: header.offset_ns, attributes: attributes)
    }

    /// The link behind `cursor`, which must have given all its attributes; moves the cursor to the link's own
    /// attributes.
    /// - Parameters:
    ///   - cursor: That of the span's last event, or its own without one, then that of the link before.
    ///   - span: The span they belong to.
    @_lifetime(self: copy self)
    public mutating func nextLink(_ cursor: AttributeCursor, of span: SpanRecord) -> LinkRecord? {
        var cursor = AttributeCursor(remaining: 0, offset: cursor.offset, end: span.bodyEnd)
        guard let header = loadHeader(lb_link_header.self, &cursor),
            Int(header.body_bytes) <= span.bodyEnd - cursor.offset, header.body_bytes % 8 == 0
        else { return malformed() }
        let attributes = AttributeCursor(
            remaining: Int(header.attribute_count), offset: cursor.offset,
            end: cursor.offset + Int(header.body_bytes))
        let target = LinkTarget(
            traceIDHigh: header.trace_id_high, traceIDLow: header.trace_id_low, spanID: header.span_id,
            traceFlags: header.trace_flags)
        return LinkRecord(target: target, attributes: attributes)
    }

    private mutating func loadHeader<T: BitwiseCopyable>(_ type: T.Type, _ cursor: inout AttributeCursor) -> T? {
        guard cursor.offset + MemoryLayout<T>.size <= cursor.end else { return nil }
        defer { cursor.offset += MemoryLayout<T>.size }
        return Self.load(type, from: bytes, at: cursor.offset)
    }

    @_lifetime(self: copy self)
    private mutating func malformed<R>() -> R? {
        isMalformed = true
        return nil
    }

    /// Reads a trivially copyable value if it lies within `bytes`. Unsafe only in the choice of type: every
    /// bit pattern of the header types is valid.
    private static func load<T: BitwiseCopyable>(_ type: T.Type, from bytes: RawSpan, at offset: Int) -> T? {
        guard offset >= 0, offset + MemoryLayout<T>.size <= bytes.byteCount else { return nil }
        return unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: type)
    }
}
