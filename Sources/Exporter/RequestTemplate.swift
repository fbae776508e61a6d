import ShmRing

/// What differs between the protobuf of two request records of one shape.
enum RequestField {
    /// Eight bytes or fewer that are stored as they are; an index into `RequestFill.words`.
    enum Word {
        static let traceHigh = 0
        static let traceLow = 1
        static let parent = 2
        static let rootFlags = 3
        static let childFlags = 4
        /// Six ids, in the order of the spans.
        static let ids = 5
        /// Six times each.
        static let starts = 11
        static let ends = 17
        static let status = 23
        static let requestBytes = 24
        static let responseBytes = 25
        static let expectedBytes = 26
        static let bodyBytes = 27
        static let backend = 28
        static let backendCount = 29
        static let healthyCount = 30
        static let idleCount = 31
        static let activeCount = 32
        static let peerPort = 33
        static let worker = 34
        static let generation = 35
        static let linkTraceHigh = 36
        static let linkTraceLow = 37
        static let linkSpan = 38
        static let streamID = 39
        static let streamsActive = 40
        static let count = 41
    }

    /// A text of the record; an index into `RequestFill.texts`.
    enum Text {
        static let method = 0
        static let url = 1
        static let host = 2
        static let userAgent = 3
        static let peerIP = 4
        static let backend = 5
        static let strategy = 6
        static let connection = 7
        static let count = 8
    }

    enum Source {
        case word(Int)
        case text(Int)
    }

    /// Where the value of an attribute comes from. Nil: it is the same for all records of a shape.
    static func source(of key: AttributeKey) -> Source? {
        switch key {
        case .httpMethod: .text(Text.method)
        case .httpURL: .text(Text.url)
        case .httpHost: .text(Text.host)
        case .httpUserAgent: .text(Text.userAgent)
        case .netPeerIP: .text(Text.peerIP)
        case .backendHost, .lbSelectedBackend: .text(Text.backend)
        case .lbStrategy: .text(Text.strategy)
        case .connectionID: .text(Text.connection)
        case .httpStatusCode: .word(Word.status)
        case .httpRequestContentLength: .word(Word.requestBytes)
        case .httpResponseContentLength: .word(Word.responseBytes)
        case .httpBodyExpectedLength: .word(Word.expectedBytes)
        case .httpBodyBytesTransferred, .httpBodyLength, .httpBodyBytesWritten: .word(Word.bodyBytes)
        case .h2StreamID: .word(Word.streamID)
        case .h2StreamsActive: .word(Word.streamsActive)
        case .backendID: .word(Word.backend)
        case .lbBackendCount: .word(Word.backendCount)
        case .lbHealthyCount: .word(Word.healthyCount)
        case .poolIdleCount: .word(Word.idleCount)
        case .poolActiveCount: .word(Word.activeCount)
        case .netPeerPort: .word(Word.peerPort)
        case .lbWorker: .word(Word.worker)
        case .lbGeneration: .word(Word.generation)
        default: nil
        }
    }
}

/// One shape of request records as ready-made protobuf with gaps.
///
///     span │ literal │ word │ literal │ text │ … │ close │ span │ …
///
/// Made from the first record of its shape, by the walk that other encodings take too, so that a shape has one
/// definition. Lengths of messages are varints padded to four bytes, those around texts to two, and numbers of 32
/// bits to five, so that only texts change what stands where.
@safe
final class RequestTemplate {
    struct Step {
        static let noParent = UInt8.max

        enum Kind: UInt8 {
            /// A span begins here: span `field`, child of the id in word `parent` if that is one. Its name and what
            /// stands between it and the times are `width` bytes of literals.
            case span
            /// Stores `width` bytes of word `field`.
            case word
            /// The rest of an attribute: lengths, a key of `width` bytes from the literals, text `field`.
            case text
            /// The same for the name of the connection, which is made here.
            case connection
            /// A link, whole but for its tag: ids, flags and the name of the connection under a key of `width` bytes.
            /// The flags and the key are literals.
            case link
            /// The message of the span ends here.
            case close
        }

        let kind: Kind
        let field: UInt8
        let width: UInt8
        let parent: UInt8
        /// Literal bytes before the step.
        let literalBytes: UInt16
    }

    let stepCount: Int
    let steps: UnsafeMutablePointer<Step>
    /// All literals one after the other, then `overshootBytes` zeros.
    let literals: UnsafeMutableRawPointer
    /// What a filled template takes at most, texts left out.
    let fixedBytes: Int

    init(_ sketch: consuming RequestSketch) {
        stepCount = sketch.steps.count
        unsafe steps = .allocate(capacity: stepCount)
        for (index, step) in sketch.steps.enumerated() { unsafe (steps + index).initialize(to: step) }
        let literalBytes = sketch.literals.count + Self.overshootBytes
        unsafe literals = .allocate(byteCount: literalBytes, alignment: 16)
        unsafe literals.initializeMemory(as: UInt8.self, repeating: 0, count: literalBytes)
        for (index, byte) in sketch.literals.enumerated() {
            unsafe literals.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
        }
        fixedBytes =
            sketch.literals.count + TemplateFiller.stepBytesMax * stepCount + Self.overshootBytes
            + 2 * ConnectionName.bytesMax
    }

    deinit {
        unsafe steps.deallocate()
        unsafe literals.deallocate()
    }
}

/// Takes down the protobuf of one request record, with gaps where records of its shape differ.
struct RequestSketch: SpanSink {
    private typealias Tag = OTLPProtobufEncoder.Tag
    private typealias Word = RequestField.Word

    private(set) var steps: [RequestTemplate.Step] = []
    private(set) var literals: [UInt8] = []
    private var literalStart = 0
    private var ids: [UInt64] = []
    /// Flags and key of the link that is being told.
    private var link: [UInt8] = []

    /// Whether the spans can be told apart, so that a child's parent is known.
    var hasDistinctIDs: Bool { Set(ids).count == ids.count }

    mutating func spanBegan(_ span: SpanFacts, of tree: TreeReader) {
        let parent = ids.firstIndex(of: span.parentID).map { Word.ids + $0 } ?? Word.parent
        let named =
            OTLPProtobufEncoder.field(Tag.spanName, span.name.text.bytes) + [Tag.spanKind, span.kind.rawValue]
        step(.span, ids.count, width: named.count, parent: span.parentID == 0 ? nil : parent)
        literals += named
        literalStart = literals.count
        ids.append(span.id)
    }

    mutating func attribute(_ key: OutputKey, _ value: TreeReader.Value, of tree: TreeReader) {
        let keyBytes = OTLPProtobufEncoder.field(Tag.key, key.text.bytes) + [Tag.value]
        guard link.isEmpty else {
            precondition(key == OutputKey(.connectionID), "a link with the attribute \(key.text)")
            link += keyBytes
            return
        }
        literals.append(Tag.spanAttribute)
        switch AttributeKey(rawValue: UInt16(key.rawValue)).flatMap(RequestField.source) {
        case .text(let field):
            step(field == RequestField.Text.connection ? .connection : .text, field, width: keyBytes.count)
            literals += keyBytes
            literalStart = literals.count
        case .word(let field):
            literals += [UInt8(keyBytes.count + 7)] + keyBytes + [6, Tag.valueInt]
            step(.word, field, width: 5)
        case nil:
            let content = Self.content(value, of: tree)
            literals += [UInt8(keyBytes.count + 1 + content.count)] + keyBytes + [UInt8(content.count)] + content
        }
    }

    mutating func eventBegan(_ name: EventName, unixNs: UInt64) {
        preconditionFailure("a usual request has no events")
    }

    mutating func eventEnded() {}

    mutating func linkBegan(_ target: LinkTarget, flags: UInt32) {
        link = [Tag.linkFlags] + (0..<4).map { UInt8(truncatingIfNeeded: flags >> (8 * $0)) }
    }

    mutating func linkEnded() {
        literals.append(Tag.spanLink)
        step(.link, width: link.count - TemplateFiller.linkFlagsBytes)
        literals += link
        literalStart = literals.count
        link = []
    }

    mutating func spanEnded(status: SpanStatus, message: Range<Int>?, of tree: TreeReader) {
        precondition(message == nil, "a usual request has no message")
        if status != .unset { literals += [Tag.spanStatus, 2, Tag.statusCode, status.rawValue] }
        step(.close)
    }

    /// An AnyValue that is the same for all.
    private static func content(_ value: TreeReader.Value, of tree: TreeReader) -> [UInt8] {
        switch value {
        case .bool(let flag): return [Tag.valueBool, flag ? 1 : 0]
        case .string(let range):
            let text = range.map { RecordBytes.byte(tree.bytes, at: $0) }
            return OTLPProtobufEncoder.field(Tag.valueString, text)
        case .int(let number):
            let varint = RequestFill.varint(UInt32(number))
            return [Tag.valueInt] + (0..<5).map { UInt8(truncatingIfNeeded: varint >> (8 * $0)) }
        case .strings: preconditionFailure("a list of a usual request is never the same for all")
        }
    }

    private mutating func step(
        _ kind: RequestTemplate.Step.Kind, _ field: Int = 0, width: Int = 0, parent: Int? = nil
    ) {
        let literalBytes = literals.count - literalStart
        literalStart = literals.count
        steps.append(
            RequestTemplate.Step(
                kind: kind, field: UInt8(field), width: UInt8(width),
                parent: parent.map { UInt8($0) } ?? RequestTemplate.Step.noParent, literalBytes: UInt16(literalBytes)))
    }
}

/// The templates of all shapes, each made when the first record of its shape comes.
struct RequestTemplates {
    private static let shapeCount = 2048
    private var made = [RequestTemplate?](repeating: nil, count: Self.shapeCount)

    subscript(shape: Int) -> RequestTemplate? {
        get { made[shape] }
        set { made[shape] = newValue }
    }

    /// What decides which attributes there are, and the values of those that have no gap.
    static func shape(of request: borrowing RequestReader) -> Int {
        let facts = request.header
        let statusClass = facts.status >= 500 ? 2 : facts.status >= 400 ? 1 : 0
        return (facts.parent_span_id != 0 ? 1 : 0) | (request.userAgent.isEmpty ? 0 : 2)
            | (facts.has_request_bytes != 0 ? 4 : 0) | Int(facts.body_type & 3) << 3 | statusClass << 5
            | Int(facts.http_flavor & 3) << 7 | (facts.link_span_id != 0 ? 512 : 0) | (request.isHTTP2 ? 1024 : 0)
    }
}
