import ShmRing

/// Encodes spans as binary protobuf (opentelemetry-proto 1.x: trace.proto, common.proto, resource.proto,
/// trace_service.proto), in one pass and without an object per span or attribute.
///
///     request ┬ resource_spans ┬ resource            ready-made bytes
///             │                └ scope_spans ┬ scope ready-made bytes
///             │                              └ spans … { attributes …, events …, links …, status }
///
/// A key is a ready-made block of bytes. The length of an attribute is known before it is written. Lengths of
/// spans, events, links and the messages around them are written afterwards, into a varint padded to four bytes
/// (which decoders must accept: protobuf encoding guide, "Base 128 Varints"; 2²⁸ bytes at most).
struct OTLPProtobufEncoder: OTLPFormat, ~Copyable {
    static let contentType = "application/x-protobuf"

    /// Field numbers with wire types, as they stand before a field.
    enum Tag {
        static let requestResourceSpans: UInt8 = 0x0A
        static let resourceSpansResource: UInt8 = 0x0A
        static let resourceSpansScopeSpans: UInt8 = 0x12
        static let resourceAttribute: UInt8 = 0x0A
        static let scopeSpansScope: UInt8 = 0x0A
        static let scopeSpansSpan: UInt8 = 0x12
        static let scopeName: UInt8 = 0x0A
        static let scopeVersion: UInt8 = 0x12
        static let spanTraceID: UInt8 = 0x0A
        static let spanID: UInt8 = 0x12
        static let spanTraceState: UInt8 = 0x1A
        static let spanParentID: UInt8 = 0x22
        static let spanName: UInt8 = 0x2A
        static let spanKind: UInt8 = 0x30
        static let spanStart: UInt8 = 0x39
        static let spanEnd: UInt8 = 0x41
        static let spanAttribute: UInt8 = 0x4A
        static let spanEvent: UInt8 = 0x5A
        static let spanLink: UInt8 = 0x6A
        static let spanStatus: UInt8 = 0x7A
        /// Field 16 takes two bytes.
        static let spanFlags: UInt16 = 0x0185
        static let eventTime: UInt8 = 0x09
        static let eventName: UInt8 = 0x12
        static let eventAttribute: UInt8 = 0x1A
        static let linkTraceID: UInt8 = 0x0A
        static let linkSpanID: UInt8 = 0x12
        static let linkAttribute: UInt8 = 0x22
        static let linkFlags: UInt8 = 0x35
        static let statusMessage: UInt8 = 0x12
        static let statusCode: UInt8 = 0x18
        static let key: UInt8 = 0x0A
        static let value: UInt8 = 0x12
        static let valueString: UInt8 = 0x0A
        static let valueBool: UInt8 = 0x10
        static let valueInt: UInt8 = 0x18
        static let valueArray: UInt8 = 0x2A
        static let arrayValue: UInt8 = 0x0A
    }

    private var out = ByteWriter()
    /// For every key: KeyValue.key and the tag of KeyValue.value.
    private let keyBlocks: [ByteBlock]
    /// For every span name: Span.name.
    private let nameBlocks: [ByteBlock]
    private let resourceMessage: [UInt8]
    private let scopeMessage: [UInt8]
    private let headBytes: Int
    private var spanStart = 0
    private var partStart = 0
    private var templates = RequestTemplates()
    private let fill = RequestFill()
    /// The tag of attributes here: a span's, an event's or a link's.
    private var attributeTag = Tag.spanAttribute

    init(_ resource: ExporterConfiguration.Resource) {
        var keys = [ByteBlock](repeating: .empty, count: OutputKey.tableSize)
        for key in OutputKey.all {
            keys[Int(key.rawValue)] = ByteBlock(Self.field(Tag.key, key.text.bytes) + [Tag.value])
        }
        var names = [ByteBlock](repeating: .empty, count: Int(UInt8.max) + 1)
        for name in SpanName.allCases {
            names[Int(name.rawValue)] = ByteBlock(Self.field(Tag.spanName, name.text.bytes))
        }
        keyBlocks = keys
        nameBlocks = names
        resourceMessage = resource.attributes.flatMap {
            Self.field(Tag.resourceAttribute, Self.keyValue($0.key, $0.value))
        }
        scopeMessage =
            Self.field(Tag.scopeName, Array(resource.scopeName.utf8))
            + Self.field(Tag.scopeVersion, Array(resource.scopeVersion.utf8))
        headBytes =
            10 + Self.field(0, resourceMessage).count + Self.field(0, scopeMessage).count
        begin()
    }

    var byteCount: Int { out.count }

    mutating func rollBack(to mark: Int) {
        out.truncate(to: mark)
        attributeTag = Tag.spanAttribute
    }

    mutating func finish(replacement: ByteStorage) -> PostBody {
        closeMessage(at: 1)
        closeMessage(at: headBytes - 4 - Self.field(0, scopeMessage).count)
        let body = out.take(replacement: replacement)
        begin()
        return body
    }

    private mutating func begin() {
        out.append(Tag.requestResourceSpans)
        out.append(littleEndian: UInt32(0))
        out.append(Self.field(Tag.resourceSpansResource, resourceMessage))
        out.append(Tag.resourceSpansScopeSpans)
        out.append(littleEndian: UInt32(0))
        out.append(Self.field(Tag.scopeSpansScope, scopeMessage))
    }

    // MARK: Usual requests

    /// Fills a template, where the names are those that templates have.
    mutating func addUsual(_ record: RawSpan, _ walk: inout TreeWalk) -> Int? {
        guard walk.naming == .classic, let request = RequestReader(record) else { return nil }
        let shape = RequestTemplates.shape(of: request)
        guard let template = templates[shape] ?? makeTemplate(shape, record, spans: request.spanCount, &walk) else {
            return nil
        }
        fill.load(request)
        return out.append(template, fill, of: request.bytes) ? request.spanCount : nil
    }

    @inline(never)
    private mutating func makeTemplate(
        _ shape: Int, _ record: RawSpan, spans: Int, _ walk: inout TreeWalk
    ) -> RequestTemplate? {
        var sketch = RequestSketch()
        guard walk.walk(record, into: &sketch) == spans, sketch.hasDistinctIDs else { return nil }
        let template = RequestTemplate(sketch)
        templates[shape] = template
        return template
    }

    // MARK: Spans

    mutating func spanBegan(_ span: SpanFacts, of tree: TreeReader) {
        out.append(Tag.scopeSpansSpan)
        spanStart = out.count
        out.append(littleEndian: UInt32(0))
        appendIdentity(span, of: tree)
        out.append(nameBlocks[Int(span.name.rawValue)])
        out.append(Tag.spanKind)
        out.append(span.kind.rawValue)
        out.append(Tag.spanStart)
        out.append(littleEndian: span.startUnixNs)
        out.append(Tag.spanEnd)
        out.append(littleEndian: span.endUnixNs)
        out.append(littleEndian: Tag.spanFlags)
        out.append(littleEndian: span.flags)
    }

    mutating func spanEnded(status: SpanStatus, message: Range<Int>?, of tree: TreeReader) {
        if status != .unset { appendStatus(status, message: message, of: tree) }
        closeMessage(at: spanStart)
    }

    mutating func eventBegan(_ name: EventName, unixNs: UInt64) {
        out.append(Tag.spanEvent)
        partStart = out.count
        out.append(littleEndian: UInt32(0))
        out.append(Tag.eventTime)
        out.append(littleEndian: unixNs)
        out.append(Tag.eventName)
        out.append(varint: UInt64(name.text.utf8CodeUnitCount))
        out.append(name.text)
        attributeTag = Tag.eventAttribute
    }

    mutating func eventEnded() {
        closeMessage(at: partStart)
        attributeTag = Tag.spanAttribute
    }

    mutating func linkBegan(_ target: LinkTarget, flags: UInt32) {
        out.append(Tag.spanLink)
        partStart = out.count
        out.append(littleEndian: UInt32(0))
        out.append(Tag.linkTraceID)
        out.append(16 as UInt8)
        out.append(bigEndian: target.traceIDHigh)
        out.append(bigEndian: target.traceIDLow)
        out.append(Tag.linkSpanID)
        out.append(8 as UInt8)
        out.append(bigEndian: target.spanID)
        out.append(Tag.linkFlags)
        out.append(littleEndian: flags)
        attributeTag = Tag.linkAttribute
    }

    mutating func linkEnded() {
        closeMessage(at: partStart)
        attributeTag = Tag.spanAttribute
    }

    private mutating func appendIdentity(_ span: SpanFacts, of tree: TreeReader) {
        out.append(Tag.spanTraceID)
        out.append(16 as UInt8)
        out.append(bigEndian: tree.traceID.high)
        out.append(bigEndian: tree.traceID.low)
        out.append(Tag.spanID)
        out.append(8 as UInt8)
        out.append(bigEndian: span.id)
        if !tree.traceState.isEmpty { appendText(Tag.spanTraceState, tree.bytes, tree.traceState) }
        guard span.parentID != 0 else { return }
        out.append(Tag.spanParentID)
        out.append(8 as UInt8)
        out.append(bigEndian: span.parentID)
    }

    private mutating func appendStatus(_ status: SpanStatus, message: Range<Int>?, of tree: TreeReader) {
        out.append(Tag.spanStatus)
        let start = out.count
        out.append(littleEndian: UInt32(0))
        if let message { appendText(Tag.statusMessage, tree.bytes, message) }
        out.append(Tag.statusCode)
        out.append(status.rawValue)
        closeMessage(at: start)
    }

    // MARK: Attributes

    @inline(__always)
    mutating func attribute(_ key: OutputKey, _ value: TreeReader.Value, of tree: TreeReader) {
        switch value {
        case .bool(let flag):
            openAttribute(key, valueBytes: 2)
            out.append(Tag.valueBool)
            out.append(flag ? 1 as UInt8 : 0)
        case .int(let number):
            let bits = UInt64(bitPattern: number)
            openAttribute(key, valueBytes: 1 + Self.varintBytes(bits))
            out.append(Tag.valueInt)
            out.append(varint: bits)
        case .string(let range):
            appendString(key, range, of: tree)
        case .strings(let range):
            appendStrings(key, range, of: tree)
        }
    }

    @inline(__always)
    private mutating func appendString(_ key: OutputKey, _ range: Range<Int>, of tree: TreeReader) {
        let start = out.count
        openAttribute(key, valueBytes: 1 + Self.varintBytes(UInt64(range.count)) + range.count)
        out.append(Tag.valueString)
        out.append(varint: UInt64(range.count))
        let textStart = out.count
        if out.append(tree.bytes, range) >= 0x80, !isUTF8(from: textStart) {
            out.truncate(to: start)
            appendRepaired(key, UTF8Repair.text(tree.bytes, range))
        }
    }

    private mutating func appendRepaired(_ key: OutputKey, _ text: String) {
        openAttribute(key, valueBytes: 1 + Self.varintBytes(UInt64(text.utf8.count)) + text.utf8.count)
        out.append(Tag.valueString)
        out.append(varint: UInt64(text.utf8.count))
        out.append(Array(text.utf8))
    }

    /// KeyValue { key, AnyValue { ArrayValue { AnyValue { string } … } } }, all lengths afterwards.
    private mutating func appendStrings(_ key: OutputKey, _ range: Range<Int>, of tree: TreeReader) {
        out.append(attributeTag)
        let attribute = openMessage()
        out.append(keyBlocks[Int(key.rawValue)])
        let value = openMessage()
        out.append(Tag.valueArray)
        let array = openMessage()
        var rest = range
        while let text = tree.nextString(&rest) {
            out.append(Tag.arrayValue)
            let element = openMessage()
            appendText(Tag.valueString, tree.bytes, text)
            closeMessage(at: element)
        }
        closeMessage(at: array)
        closeMessage(at: value)
        closeMessage(at: attribute)
    }

    /// Everything of an attribute before the content of its AnyValue.
    @inline(__always)
    private mutating func openAttribute(_ key: OutputKey, valueBytes: Int) {
        let block = keyBlocks[Int(key.rawValue)]
        out.append(attributeTag)
        out.append(varint: UInt64(block.count + Self.varintBytes(UInt64(valueBytes)) + valueBytes))
        out.append(block)
        out.append(varint: UInt64(valueBytes))
    }

    // MARK: Pieces

    private mutating func appendText(_ tag: UInt8, _ record: RawSpan, _ range: Range<Int>) {
        let start = out.count
        out.append(tag)
        out.append(varint: UInt64(range.count))
        let textStart = out.count
        guard out.append(record, range) >= 0x80, !isUTF8(from: textStart) else { return }
        out.truncate(to: start)
        out.append(Self.field(tag, Array(UTF8Repair.text(record, range).utf8)))
    }

    @inline(never)
    private func isUTF8(from start: Int) -> Bool {
        out.withBytes(from: start) { UTF8Repair.isValid($0) }
    }

    private mutating func openMessage() -> Int {
        out.append(littleEndian: UInt32(0))
        return out.count - 4
    }

    /// Writes the length of the message whose padded length starts at `offset` and which ends here.
    @inline(__always)
    private mutating func closeMessage(at offset: Int) {
        let length = UInt32(out.count - offset - 4)
        precondition(length < 1 << 28, "a message of \(length) bytes")
        out.patch(littleEndian: Self.paddedLength(length), at: offset)
    }

    /// A length below 2²⁸ as a varint of four bytes, the first in the lowest byte.
    @inline(__always)
    static func paddedLength(_ length: UInt32) -> UInt32 {
        (length & 0x7F | 0x80) | (length >> 7 & 0x7F | 0x80) << 8 | (length >> 14 & 0x7F | 0x80) << 16
            | (length >> 21) << 24
    }

    @inline(__always)
    private static func varintBytes(_ value: UInt64) -> Int {
        value < 0x80 ? 1 : (70 - (value | 1).leadingZeroBitCount) / 7
    }

    private static func varint(_ value: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        return bytes + [UInt8(rest)]
    }

    static func field(_ tag: UInt8, _ content: [UInt8]) -> [UInt8] {
        [tag] + varint(UInt64(content.count)) + content
    }

    private static func keyValue(_ key: String, _ value: ExporterConfiguration.Resource.Value) -> [UInt8] {
        let content: [UInt8] =
            switch value {
            case .string(let text): field(Tag.valueString, Array(text.utf8))
            case .int(let number): [Tag.valueInt] + varint(UInt64(bitPattern: number))
            }
        return field(Tag.key, Array(key.utf8)) + field(Tag.value, content)
    }
}
