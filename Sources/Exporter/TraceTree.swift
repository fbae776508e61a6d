import ShmRing

/// One trace as values, for people to look at. Texts are clean: valid UTF-8 without control characters, so
/// that nothing that a client sent can move a cursor or forge a line.
struct TraceTree {
    struct Attribute: Equatable {
        let key: String
        let value: String
    }

    struct Event {
        let name: String
        let unixNs: UInt64
        var attributes: [Attribute] = []
    }

    struct Link {
        let target: LinkTarget
        var attributes: [Attribute] = []
    }

    struct Node {
        let facts: SpanFacts
        var attributes: [Attribute] = []
        var events: [Event] = []
        var links: [Link] = []
        var status = SpanStatus.unset
        var message: String?
        /// Indices of the children, by start.
        var children: [Int] = []
    }

    let traceID: (high: UInt64, low: UInt64)
    let parentSpanID: UInt64
    /// The root first.
    private(set) var nodes: [Node]

    /// - Returns: Nil when the record is malformed or holds no span that means anything.
    init?(record: RawSpan, _ walk: inout TreeWalk) {
        var collector = Collector()
        guard walk.walk(record, into: &collector) != nil, !collector.nodes.isEmpty else { return nil }
        traceID = collector.traceID
        parentSpanID = collector.parentSpanID
        nodes = collector.nodes
        linkChildren()
    }

    /// A parent stands before its children; a span whose parent is not here hangs on the root.
    private mutating func linkChildren() {
        for index in nodes.indices.dropFirst() {
            let parentID = nodes[index].facts.parentID
            let parent = nodes[..<index].firstIndex { $0.facts.id == parentID } ?? 0
            nodes[parent].children.append(index)
        }
        let starts = nodes.map(\.facts.startUnixNs)
        for index in nodes.indices {
            nodes[index].children.sort { (starts[$0], $0) < (starts[$1], $1) }
        }
    }

    private struct Collector: SpanSink {
        var nodes: [Node] = []
        var traceID: (high: UInt64, low: UInt64) = (0, 0)
        var parentSpanID: UInt64 = 0
        private var event: Event?
        private var link: Link?

        init() {}

        mutating func spanBegan(_ span: SpanFacts, of tree: TreeReader) {
            traceID = tree.traceID
            parentSpanID = tree.parentSpanID
            nodes.append(Node(facts: span))
        }

        mutating func attribute(_ key: OutputKey, _ value: TreeReader.Value, of tree: TreeReader) {
            let attribute = Attribute(key: "\(key.text)", value: Self.text(value, of: tree))
            if event != nil {
                event?.attributes.append(attribute)
            } else if link != nil {
                link?.attributes.append(attribute)
            } else {
                nodes[nodes.count - 1].attributes.append(attribute)
            }
        }

        mutating func eventBegan(_ name: EventName, unixNs: UInt64) {
            event = Event(name: "\(name.text)", unixNs: unixNs)
        }

        mutating func eventEnded() {
            if let event { nodes[nodes.count - 1].events.append(event) }
            event = nil
        }

        mutating func linkBegan(_ target: LinkTarget, flags: UInt32) {
            link = Link(target: target)
        }

        mutating func linkEnded() {
            if let link { nodes[nodes.count - 1].links.append(link) }
            link = nil
        }

        mutating func spanEnded(status: SpanStatus, message: Range<Int>?, of tree: TreeReader) {
            nodes[nodes.count - 1].status = status
            nodes[nodes.count - 1].message = message.map { Self.clean(UTF8Repair.text(tree.bytes, $0)) }
        }

        private static func text(_ value: TreeReader.Value, of tree: TreeReader) -> String {
            switch value {
            case .bool(let flag): return flag ? "true" : "false"
            case .int(let number): return String(number)
            case .string(let range): return clean(UTF8Repair.text(tree.bytes, range))
            case .strings(let range):
                var rest = range
                var texts: [String] = []
                while let text = tree.nextString(&rest) { texts.append(clean(UTF8Repair.text(tree.bytes, text))) }
                return "[" + texts.joined(separator: ", ") + "]"
            }
        }

        /// Control and format characters as `\u{…}`: C0, DEL, C1, and the ones that reorder or hide text.
        private static func clean(_ text: String) -> String {
            guard text.unicodeScalars.contains(where: isHarmful) else { return text }
            return text.unicodeScalars.reduce(into: "") { clean, scalar in
                if isHarmful(scalar) {
                    clean += "\\u{" + String(scalar.value, radix: 16) + "}"
                } else {
                    clean.unicodeScalars.append(scalar)
                }
            }
        }

        private static func isHarmful(_ scalar: Unicode.Scalar) -> Bool {
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: true
            default: false
            }
        }
    }
}
