import CShims

/// Writes one request's span tree into reserved ring memory, in the format of `shm_layout.h`.
///
/// Order of calls: `begin`, then for each span `beginSpan`, its attributes, its events (each followed by
/// the event's attributes), its links (likewise); a parent before its children. `RingProducer.publish` ends it.
/// An attribute that does not fit is left out and counted; a span, event or link that does not fit fails the
/// tree, which is then dropped and counted as too large; so does a 256th span, which no child could name.
/// No call reads or writes outside the reservation.
@safe
public struct TreeWriter: ~Copyable {
    /// Longest string value in bytes; longer ones are cut on a UTF-8 boundary and counted.
    public static let stringBytesMax = 1024

    private let start: UnsafeMutableRawPointer
    private let capacityBytes: Int
    private var used = 0
    private var hasFailed = false
    private var spanOffset = 0
    private var spanAttributes: UInt16 = 0
    private var spanEvents: UInt16 = 0
    private var spanLinks: UInt16 = 0
    /// Of the event or link whose attributes come; 0 while they are the span's.
    private var eventOffset = 0
    private var linkOffset = 0
    private var partAttributes: UInt16 = 0
    /// Spans begun so far.
    public private(set) var spanCount: UInt16 = 0
    /// Values shortened or left out so far.
    public private(set) var valuesCut: UInt64 = 0

    /// - Parameters:
    ///   - start: 8-aligned memory that nobody else touches.
    ///   - capacityBytes: Its size.
    init(start: UnsafeMutableRawPointer, capacityBytes: Int) {
        unsafe self.start = start
        self.capacityBytes = capacityBytes
    }

    /// The tree's own facts. Must come first.
    /// - Parameters:
    ///   - traceID: High and low half, as in the hexadecimal text.
    ///   - parentSpanID: The caller's span, 0 for none.
    ///   - traceFlags: W3C trace flags.
    ///   - baseUnixNs: Unix time in nanoseconds from which every offset counts.
    ///   - traceState: The `tracestate` value, empty for none.
    public mutating func begin(
        traceID: (high: UInt64, low: UInt64), parentSpanID: UInt64, traceFlags: UInt8, baseUnixNs: UInt64,
        traceState: Span<UInt8>
    ) {
        var header = lb_tree_header()
        header.record.kind = UInt16(LB_RECORD_TREE)
        header.parent_span_id = parentSpanID
        header.base_unix_ns = baseUnixNs
        header.trace_flags = traceFlags
        let fits = MemoryLayout<lb_tree_header>.size + padded(traceState.count) <= capacityBytes
        header.trace_state_bytes = fits ? UInt32(traceState.count) : 0
        guard append(header) else { return }
        store(traceID.high.bigEndian, at: 8)
        store(traceID.low.bigEndian, at: 16)
        if fits { appendBytes(traceState) } else { valuesCut += 1 }
    }

    /// Starts the next span and ends the one before.
    /// - Parameters:
    ///   - parent: Index of an earlier span, nil for the tree's root.
    ///   - startOffsetNs: Nanoseconds after the tree's base time.
    ///   - endOffsetNs: Not before the start.
    /// - Returns: The span's index, for its children.
    @discardableResult
    public mutating func beginSpan(
        _ name: SpanName, kind: SpanKind, id: UInt64, parent: Int?, startOffsetNs: UInt64, endOffsetNs: UInt64,
        status: SpanStatus = .unset
    ) -> Int {
        closeSpan()
        guard spanCount < LB_PARENT_NONE else {
            hasFailed = true
            return Int(spanCount) - 1
        }
        var header = lb_span_header()
        header.span_id = id
        header.start_offset_ns = startOffsetNs
        header.end_offset_ns = max(startOffsetNs, endOffsetNs)
        header.name = name.rawValue
        header.kind = kind.rawValue
        header.status = status.rawValue
        header.parent_index = parent.map { UInt8($0) } ?? UInt8(LB_PARENT_NONE)
        spanOffset = used
        spanCount += 1
        append(header)
        return Int(spanCount) - 1
    }

    /// Starts an event of the current span; attributes that follow are the event's.
    public mutating func beginEvent(_ name: EventName, offsetNs: UInt64) {
        closePart()
        var header = lb_event_header()
        header.offset_ns = offsetNs
        header.name = name.rawValue
        eventOffset = used
        spanEvents += 1
        append(header)
    }

    /// Starts a link of the current span, behind its events; attributes that follow are the link's.
    public mutating func beginLink(to target: LinkTarget) {
        closePart()
        var header = lb_link_header()
        header.trace_id_high = target.traceIDHigh
        header.trace_id_low = target.traceIDLow
        header.span_id = target.spanID
        header.trace_flags = target.traceFlags
        linkOffset = used
        spanLinks += 1
        append(header)
    }

    public mutating func attribute(_ key: AttributeKey, _ value: Bool) {
        appendAttribute(key, type: LB_VALUE_BOOL, value: value ? 1 : 0, extraBytes: 0)
    }

    public mutating func attribute(_ key: AttributeKey, _ value: Int) {
        if let small = Int32(exactly: value) {
            appendAttribute(key, type: LB_VALUE_INT32, value: UInt32(bitPattern: small), extraBytes: 0)
        } else if appendAttribute(key, type: LB_VALUE_INT64, value: 0, extraBytes: 8) {
            store(value, at: used)
            used += 8
        }
    }

    public mutating func attribute(_ key: AttributeKey, _ value: StaticString) {
        let count = value.utf8CodeUnitCount
        guard appendAttribute(key, type: LB_VALUE_STRING, value: UInt32(count), extraBytes: padded(count)) else {
            return
        }
        unsafe (start + used).copyMemory(from: value.utf8Start, byteCount: count)
        used += padded(count)
    }

    /// A text from outside: cut at 1,024 bytes, and percent-escaped where it is not UTF-8.
    public mutating func attribute(_ key: AttributeKey, text: Span<UInt8>) {
        if text.count <= Self.stringBytesMax, RecordText.isASCII(text) {
            let count = text.count
            guard appendAttribute(key, type: LB_VALUE_STRING, value: UInt32(count), extraBytes: padded(count))
            else { return }
            appendBytes(text)
        } else {
            let (clean, isCut) = RecordText.sanitized(text, bytesMax: Self.stringBytesMax)
            if isCut { valuesCut += 1 }
            attribute(key, clean: clean)
        }
    }

    /// A text of our own, known to be UTF-8.
    public mutating func attribute(_ key: AttributeKey, _ value: String) {
        attribute(key, text: value.utf8.span)
    }

    /// Texts of our own, as one array value.
    public mutating func attribute(_ key: AttributeKey, _ values: [String]) {
        let bytes = values.reduce(0) { $0 + 4 + (($1.utf8.count + 3) & ~3) }
        guard appendAttribute(key, type: LB_VALUE_STRINGS, value: UInt32(bytes), extraBytes: padded(bytes)) else {
            return
        }
        var at = used
        for value in values {
            let utf8 = value.utf8.span
            store(UInt32(utf8.count), at: at)
            unsafe utf8.withUnsafeBufferPointer { source in
                guard let from = source.baseAddress else { return }
                unsafe (start + at + 4).copyMemory(from: from, byteCount: source.count)
            }
            at += 4 + ((utf8.count + 3) & ~3)
        }
        used += padded(bytes)
    }

    /// Completes the record.
    /// - Returns: Its size in bytes, or nil when the tree did not fit.
    consuming func finish() -> Int? {
        closeSpan()
        guard !hasFailed, used >= MemoryLayout<lb_tree_header>.size else { return nil }
        store(UInt32(used), at: 0)
        store(spanCount, at: MemoryLayout<lb_tree_header>.offset(of: \.span_count)!)
        return used
    }

    private mutating func attribute(_ key: AttributeKey, clean: [UInt8]) {
        guard
            appendAttribute(
                key, type: LB_VALUE_STRING, value: UInt32(clean.count), extraBytes: padded(clean.count))
        else { return }
        appendBytes(clean.span)
    }

    private mutating func closeSpan() {
        closePart()
        guard spanCount > 0, !hasFailed else { return }
        let body = UInt32(used - spanOffset - MemoryLayout<lb_span_header>.size)
        store(body, at: spanOffset + MemoryLayout<lb_span_header>.offset(of: \.body_bytes)!)
        store(spanAttributes, at: spanOffset + MemoryLayout<lb_span_header>.offset(of: \.attribute_count)!)
        store(spanEvents, at: spanOffset + MemoryLayout<lb_span_header>.offset(of: \.event_count)!)
        store(spanLinks, at: spanOffset + MemoryLayout<lb_span_header>.offset(of: \.link_count)!)
        spanAttributes = 0
        spanEvents = 0
        spanLinks = 0
    }

    /// Ends the event or link whose attributes came.
    private mutating func closePart() {
        guard !hasFailed else { return }
        if eventOffset > 0 {
            let body = UInt32(used - eventOffset - MemoryLayout<lb_event_header>.size)
            store(body, at: eventOffset + MemoryLayout<lb_event_header>.offset(of: \.body_bytes)!)
            store(partAttributes, at: eventOffset + MemoryLayout<lb_event_header>.offset(of: \.attribute_count)!)
        } else if linkOffset > 0 {
            let body = UInt32(used - linkOffset - MemoryLayout<lb_link_header>.size)
            store(body, at: linkOffset + MemoryLayout<lb_link_header>.offset(of: \.body_bytes)!)
            store(partAttributes, at: linkOffset + MemoryLayout<lb_link_header>.offset(of: \.attribute_count)!)
        }
        eventOffset = 0
        linkOffset = 0
        partAttributes = 0
    }

    /// Appends an attribute's header if it and `extraBytes` behind it fit, else counts the cut.
    @discardableResult
    private mutating func appendAttribute(
        _ key: AttributeKey, type: some BinaryInteger, value: UInt32, extraBytes: Int
    ) -> Bool {
        let bytes = MemoryLayout<lb_attribute_header>.size + extraBytes
        guard !hasFailed, used + bytes <= capacityBytes else {
            valuesCut += 1
            return false
        }
        append(lb_attribute_header(key: key.rawValue, type: UInt8(type), reserved0: 0, value: value))
        if eventOffset > 0 || linkOffset > 0 { partAttributes += 1 } else { spanAttributes += 1 }
        return true
    }

    @discardableResult
    private mutating func append<T: BitwiseCopyable>(_ header: T) -> Bool {
        guard !hasFailed, used + MemoryLayout<T>.size <= capacityBytes else {
            hasFailed = true
            return false
        }
        store(header, at: used)
        used += MemoryLayout<T>.size
        return true
    }

    /// Copies bytes and zeroes their padding; the caller has checked that they fit.
    private mutating func appendBytes(_ bytes: Span<UInt8>) {
        let total = padded(bytes.count)
        precondition(used + total <= capacityBytes)
        guard total > 0 else { return }
        unsafe (start + used + total - 8).storeBytes(of: 0, as: UInt64.self)
        unsafe bytes.withUnsafeBufferPointer { source in
            unsafe (start + used).copyMemory(from: source.baseAddress!, byteCount: source.count)
        }
        used += total
    }

    private func store<T: BitwiseCopyable>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && offset + MemoryLayout<T>.size <= capacityBytes)
        unsafe (start + offset).storeBytes(of: value, as: T.self)
    }

    private func padded(_ count: Int) -> Int { (count + 7) & ~7 }
}
