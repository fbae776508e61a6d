import ShmRing

/// What a walk says about one span before its attributes. Everything in it has been checked.
struct SpanFacts {
    let id: UInt64
    /// 0: none.
    let parentID: UInt64
    let name: SpanName
    let kind: SpanKind
    let startUnixNs: UInt64
    let endUnixNs: UInt64
    /// As OTLP's Span.flags.
    let flags: UInt32
}

/// Takes the content of trees in the order of the record. Texts are ranges of the record's bytes, which
/// nobody has checked to be UTF-8 and whose writer may still change them.
protocol SpanSink: ~Copyable {
    mutating func spanBegan(_ span: SpanFacts, of tree: TreeReader)
    /// An attribute of the current event or link if there is one, else of the span.
    mutating func attribute(_ key: OutputKey, _ value: TreeReader.Value, of tree: TreeReader)
    mutating func eventBegan(_ name: EventName, unixNs: UInt64)
    mutating func eventEnded()
    /// A link of the span; both ids are valid. Attributes until `linkEnded` are the link's.
    /// - Parameter flags: As OTLP's Link.flags.
    mutating func linkBegan(_ target: LinkTarget, flags: UInt32)
    mutating func linkEnded()
    /// - Parameter message: OTLP's Status.message, only with an error.
    mutating func spanEnded(status: SpanStatus, message: Range<Int>?, of tree: TreeReader)
}

/// Reads a record and tells a sink what is in it: the one place that knows how a record becomes spans, so
/// that protobuf, JSON and console output cannot differ.
///
///     for each span:  spanBegan, attribute*, { eventBegan, attribute*, eventEnded }*,
///                     { linkBegan, attribute*, linkEnded }*, spanEnded
///
/// A record that contradicts itself yields nil, and the sink must forget what it was told of it. A span,
/// event or attribute whose number means nothing, or a link to nothing, is left out and counted; children of a span left out go to
/// its parent.
struct TreeWalk {
    /// OTLP trace.proto, SpanFlags.
    private static let hasIsRemote: UInt32 = 0x100
    private static let isRemote: UInt32 = 0x200

    let naming: ExporterConfiguration.AttributeNaming
    private let rules: AttributeRules
    private let expander = RequestExpander()
    /// Ids of the spans of the current tree, for their children; a parent's index has 8 bits.
    private var spanIDs = [UInt64](repeating: 0, count: 256)
    /// Spans, events, links and attributes left out because their numbers mean nothing.
    private(set) var unknownCount: UInt64 = 0

    init(naming: ExporterConfiguration.AttributeNaming) {
        self.naming = naming
        rules = AttributeRules(naming)
    }

    /// - Parameter record: One whole record.
    /// - Returns: How many spans the sink was told of, or nil when the record is malformed.
    mutating func walk<Sink: SpanSink & ~Copyable>(_ record: RawSpan, into sink: inout Sink) -> Int? {
        expander.withTree(record) { walkTree($0, into: &sink) }
    }

    private mutating func walkTree<Sink: SpanSink & ~Copyable>(_ record: RawSpan, into sink: inout Sink) -> Int? {
        guard var tree = TreeReader(record), tree.traceID.high | tree.traceID.low != 0 else { return nil }
        var spans = 0
        var index = 0
        while let span = tree.nextSpan() {
            let parentID = span.parentIndex.map { spanIDs[$0] } ?? tree.parentSpanID
            let facts = Self.facts(span, parentID: parentID, of: tree)
            if index < spanIDs.count { spanIDs[index] = facts == nil ? parentID : span.id }
            index += 1
            guard let facts else {
                unknownCount += 1
                continue
            }
            sink.spanBegan(facts, of: tree)
            walkBody(of: span, isServer: facts.kind == .server, &tree, &sink)
            spans += 1
        }
        return tree.isMalformed ? nil : spans
    }

    private mutating func walkBody<Sink: SpanSink & ~Copyable>(
        of span: TreeReader.SpanRecord, isServer: Bool, _ tree: inout TreeReader, _ sink: inout Sink
    ) {
        var cursor = span.attributes
        let message = walkAttributes(&cursor, isServer: isServer, &tree, &sink)
        for _ in 0..<span.eventCount {
            guard let event = tree.nextEvent(cursor, of: span) else { break }
            cursor = event.attributes
            walkEvent(event, &cursor, isServer: isServer, &tree, &sink)
        }
        for _ in 0..<span.linkCount {
            guard let link = tree.nextLink(cursor, of: span) else { break }
            cursor = link.attributes
            walkLink(link, &cursor, isServer: isServer, &tree, &sink)
        }
        let status = SpanStatus(rawValue: span.status) ?? .unset
        sink.spanEnded(status: status, message: status == .error ? message : nil, of: tree)
    }

    private mutating func walkEvent<Sink: SpanSink & ~Copyable>(
        _ event: TreeReader.EventRecord, _ cursor: inout TreeReader.AttributeCursor, isServer: Bool,
        _ tree: inout TreeReader, _ sink: inout Sink
    ) {
        guard let name = EventName(rawValue: event.name) else {
            unknownCount += 1
            while tree.nextAttribute(&cursor) != nil {}
            return
        }
        sink.eventBegan(name, unixNs: Self.sum(tree.baseUnixNs, event.offsetNs))
        _ = walkAttributes(&cursor, isServer: isServer, &tree, &sink)
        sink.eventEnded()
    }

    private mutating func walkLink<Sink: SpanSink & ~Copyable>(
        _ link: TreeReader.LinkRecord, _ cursor: inout TreeReader.AttributeCursor, isServer: Bool,
        _ tree: inout TreeReader, _ sink: inout Sink
    ) {
        let target = link.target
        guard target.spanID != 0, target.traceIDHigh | target.traceIDLow != 0 else {
            unknownCount += 1
            while tree.nextAttribute(&cursor) != nil {}
            return
        }
        sink.linkBegan(target, flags: Self.flags(target.traceFlags, isChildOfRemote: false))
        _ = walkAttributes(&cursor, isServer: isServer, &tree, &sink)
        sink.linkEnded()
    }

    /// - Returns: The value of the pseudo attribute `statusMessage`, which is no attribute.
    @inline(__always)
    private mutating func walkAttributes<Sink: SpanSink & ~Copyable>(
        _ cursor: inout TreeReader.AttributeCursor, isServer: Bool, _ tree: inout TreeReader, _ sink: inout Sink
    ) -> Range<Int>? {
        var message: Range<Int>?
        while let (key, value) = tree.nextAttribute(&cursor) {
            let rule = rules.rule(forKey: key, isServer: isServer)
            if key == AttributeKey.statusMessage.rawValue {
                if case .string(let range) = value { message = range }
            } else if rule.isKnown {
                Self.apply(rule, value, tree, &sink)
            } else {
                unknownCount += 1
            }
        }
        return message
    }

    @inline(__always)
    private static func apply<Sink: SpanSink & ~Copyable>(
        _ rule: AttributeRule, _ value: TreeReader.Value, _ tree: TreeReader, _ sink: inout Sink
    ) {
        if rule.first != .none { sink.attribute(rule.first, value, of: tree) }
        if rule.second != .none { sink.attribute(rule.second, value, of: tree) }
        if rule.third != .none { sink.attribute(rule.third, value, of: tree) }
        if rule.expansion != .none, case .string(let range) = value { expand(rule.expansion, range, tree, &sink) }
    }

    @inline(never)
    private static func expand<Sink: SpanSink & ~Copyable>(
        _ expansion: AttributeRule.Expansion, _ range: Range<Int>, _ tree: TreeReader, _ sink: inout Sink
    ) {
        switch expansion {
        case .none: return
        case .url:
            let url = AddressParts.url(tree.bytes, range)
            for (key, part) in [(StableKey.urlScheme, url.scheme), (.urlPath, url.path), (.urlQuery, url.query)]
            where !part.isEmpty {
                sink.attribute(OutputKey(key), .string(part), of: tree)
            }
        case .authority:
            let (host, port) = AddressParts.authority(tree.bytes, range)
            if !host.isEmpty { sink.attribute(OutputKey(.serverAddress), .string(host), of: tree) }
            if let port { sink.attribute(OutputKey(.serverPort), .int(port), of: tree) }
        }
    }

    /// Nil when name, kind or status mean nothing, or the id is the invalid one.
    private static func facts(_ span: TreeReader.SpanRecord, parentID: UInt64, of tree: TreeReader) -> SpanFacts? {
        guard let name = SpanName(rawValue: span.name), let kind = SpanKind(rawValue: span.kind),
            span.status <= SpanStatus.error.rawValue, span.id != 0
        else { return nil }
        let isChildOfRemote = span.parentIndex == nil && tree.parentSpanID != 0
        return SpanFacts(
            id: span.id, parentID: parentID, name: name, kind: kind,
            startUnixNs: sum(tree.baseUnixNs, span.startOffsetNs), endUnixNs: sum(tree.baseUnixNs, span.endOffsetNs),
            flags: flags(tree.traceFlags, isChildOfRemote: isChildOfRemote))
    }

    static func flags(_ traceFlags: UInt8, isChildOfRemote: Bool) -> UInt32 {
        UInt32(traceFlags) | hasIsRemote | (isChildOfRemote ? isRemote : 0)
    }

    /// A sum that stays at the end of time, so that start ≤ end holds for any numbers.
    static func sum(_ base: UInt64, _ offset: UInt64) -> UInt64 {
        let (sum, overflow) = base.addingReportingOverflow(offset)
        return overflow ? .max : sum
    }
}
