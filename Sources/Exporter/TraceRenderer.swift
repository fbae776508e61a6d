import ShmRing

/// Draws a trace for a terminal: a headline, then each span with when it began, how long it took and where
/// that lies in the whole, its attributes, events and errors below it.
///
///     GET http://localhost:8080/hello  200  3.42 ms
///     2026-11-22 17:20:31.123 UTC  trace 4bf92f3577b34da6a3ce929d0e0e4736
///     proxy_request server             +0 ns    3.42 ms  ━━━━━━━━━━━━━━━━━━━━━━━━
///     │ http.method  GET
///     ├─ backend_selection            +11 µs       3 µs  ╸
///
/// Columns line up as long as names stay within `labelColumns`; texts are never cut.
struct TraceRenderer {
    private static let labelColumns = 38
    private static let timeColumns = 11
    private static let barColumns = 40

    private let isColoured: Bool

    init(isColoured: Bool) {
        self.isColoured = isColoured
    }

    /// The whole drawing, with an empty line behind it.
    func text(of tree: TraceTree) -> String {
        var text = headline(tree) + subline(tree)
        draw(0, of: tree, stem: "", branch: "", into: &text)
        return text + "\n"
    }

    // MARK: Headline

    private func headline(_ tree: TraceTree) -> String {
        let root = tree.nodes[0]
        let length = painted(Self.duration(root.facts.endUnixNs - root.facts.startUnixNs), .time)
        guard root.facts.name != .upstreamConnection else { return connectionHeadline(root, length) }
        let request = [value(root, .httpMethod, .httpRequestMethod), value(root, .httpURL, .urlPath)]
            .compactMap { $0 }.joined(separator: " ")
        let status = value(root, .httpStatusCode, .httpResponseStatusCode) ?? "no answer"
        let shownStatus = painted(status, root.status == .error ? .error : .good)
        return "\(painted(request.isEmpty ? "request" : request, .strong))  \(shownStatus)  "
            + length + "\n"
    }

    /// `connection w0-7 to backend.test:9000  peer_closed  12.3 s`
    private func connectionHeadline(_ root: TraceTree.Node, _ length: String) -> String {
        func text(_ key: AttributeKey) -> String { root.attributes.first { $0.key == "\(key.text)" }?.value ?? "?" }
        let name = painted("connection \(text(.connectionID)) to \(text(.backendHost))", .strong)
        let reason = painted(text(.connectionCloseReason), root.status == .error ? .error : .good)
        return "\(name)  \(reason)  \(length)\n"
    }

    private func subline(_ tree: TraceTree) -> String {
        let traceID = Self.hex(tree.traceID.high) + Self.hex(tree.traceID.low)
        let parent = tree.parentSpanID == 0 ? "" : "  parent \(Self.hex(tree.parentSpanID))"
        return painted("\(Self.date(tree.nodes[0].facts.startUnixNs))  trace \(traceID)\(parent)", .faint) + "\n"
    }

    private func value(_ node: TraceTree.Node, _ classic: AttributeKey, _ stable: StableKey) -> String? {
        let keys = ["\(classic.text)", "\(stable.text)"]
        return node.attributes.first { keys.contains($0.key) }?.value
    }

    // MARK: Spans

    /// - Parameters:
    ///   - stem: What stands before every line below this span.
    ///   - branch: What stands before the span's own line.
    private func draw(_ index: Int, of tree: TraceTree, stem: String, branch: String, into text: inout String) {
        let node = tree.nodes[index]
        text += spanLine(node, root: tree.nodes[0].facts, branch: branch)
        let inner = stem + (node.children.isEmpty ? "  " : "│ ")
        drawAttributes(node.attributes, before: inner, into: &text)
        for event in node.events { text += eventLine(event, of: node, before: inner) }
        for link in node.links { text += linkLine(link, before: inner) }
        if node.status == .error {
            text += painted(inner, .faint) + painted("✗ " + (node.message ?? "error"), .error) + "\n"
        }
        for child in node.children {
            let isLast = child == node.children.last
            draw(
                child, of: tree, stem: stem + (isLast ? "   " : "│  "), branch: stem + (isLast ? "└─ " : "├─ "),
                into: &text)
        }
    }

    private func spanLine(_ node: TraceTree.Node, root: SpanFacts, branch: String) -> String {
        let facts = node.facts
        let name = "\(facts.name.text)"
        let kind = Self.kindText(facts.kind)
        let gap = Self.spaces(Self.labelColumns - branch.count - name.count - kind.count)
        let offset = "+" + Self.duration(facts.startUnixNs - min(root.startUnixNs, facts.startUnixNs))
        let duration = Self.duration(facts.endUnixNs - facts.startUnixNs)
        return painted(branch, .faint) + painted(name, node.status == .error ? .error : .strong) + painted(kind, .faint)
            + gap + painted(Self.right(offset), .faint) + painted(Self.right(duration), .time) + "  "
            + painted(Self.bar(facts, root: root), node.status == .error ? .error : .bar) + "\n"
    }

    private func drawAttributes(_ attributes: [TraceTree.Attribute], before stem: String, into text: inout String) {
        let keyColumns = attributes.map(\.key.count).max() ?? 0
        for attribute in attributes {
            text += painted(stem + attribute.key, .faint) + Self.spaces(keyColumns - attribute.key.count + 2)
            text += attribute.value + "\n"
        }
    }

    private func eventLine(_ event: TraceTree.Event, of node: TraceTree.Node, before stem: String) -> String {
        let offset = Self.duration(event.unixNs - min(event.unixNs, node.facts.startUnixNs))
        let details = event.attributes.map { "  \($0.key)=\($0.value)" }.joined()
        return painted(stem, .faint) + painted("◆ \(event.name)", .event) + painted(" +\(offset)", .faint) + details
            + "\n"
    }

    private func linkLine(_ link: TraceTree.Link, before stem: String) -> String {
        let details = link.attributes.map { "  \($0.key)=\($0.value)" }.joined()
        let traceID = Self.hex(link.target.traceIDHigh) + Self.hex(link.target.traceIDLow)
        return painted(stem, .faint) + painted("↗ trace \(traceID) span \(Self.hex(link.target.spanID))", .event)
            + details + "\n"
    }

    private static func kindText(_ kind: SpanKind) -> String {
        switch kind {
        case .internal: ""
        case .server: " server"
        case .client: " client"
        }
    }

    /// Where the span lies in the root's time, at least half a column long.
    private static func bar(_ span: SpanFacts, root: SpanFacts) -> String {
        let wholeNs = Double(max(root.endUnixNs - root.startUnixNs, 1))
        func halfColumn(_ unixNs: UInt64) -> Int {
            let share = Double(min(max(unixNs, root.startUnixNs), root.endUnixNs) - root.startUnixNs) / wholeNs
            return Int((share * Double(2 * barColumns)).rounded())
        }
        let start = min(halfColumn(span.startUnixNs), 2 * barColumns - 1)
        let end = max(halfColumn(span.endUnixNs), start + 1)
        return spaces(start / 2) + halves(from: start, to: end)
    }

    /// A line made of half columns.
    private static func halves(from start: Int, to end: Int) -> String {
        let head = start % 2 == 1 ? "╺" : ""
        let full = max(0, end / 2 - (start + 1) / 2)
        let tail = end % 2 == 1 && end > start && end / 2 >= (start + 1) / 2 ? "╸" : ""
        return head + String(repeating: "━", count: full) + tail
    }

    // MARK: Texts

    /// Three digits and a unit that suits.
    static func duration(_ ns: UInt64) -> String {
        switch ns {
        case ..<1_000: "\(ns) ns"
        case ..<1_000_000: threeDigits(Double(ns) / 1_000) + " µs"
        case ..<1_000_000_000: threeDigits(Double(ns) / 1_000_000) + " ms"
        default: threeDigits(Double(ns) / 1_000_000_000) + " s"
        }
    }

    private static func threeDigits(_ value: Double) -> String {
        if value >= 99.95 { return String(Int(value.rounded())) }
        let decimals = value >= 9.995 ? 1 : 2
        let scale = decimals == 1 ? 10 : 100
        let scaled = Int((value * Double(scale)).rounded())
        let fraction = String(scaled % scale)
        return "\(scaled / scale).\(String(repeating: "0", count: decimals - fraction.count))\(fraction)"
    }

    /// `2026-11-22 17:20:31.123 UTC`
    static func date(_ unixNs: UInt64) -> String {
        let moment = CivilTime(unixNs: unixNs)
        return "\(padded(moment.year, 4))-\(padded(moment.month, 2))-\(padded(moment.day, 2)) "
            + "\(padded(moment.hour, 2)):\(padded(moment.minute, 2)):\(padded(moment.second, 2))"
            + ".\(padded(moment.microsecond / 1000, 3)) UTC"
    }

    private static func padded(_ number: Int, _ digits: Int) -> String {
        let text = String(number)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }

    private static func hex(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }

    private static func spaces(_ count: Int) -> String {
        String(repeating: " ", count: max(0, count))
    }

    private static func right(_ text: String) -> String {
        spaces(timeColumns - text.count) + text
    }

    // MARK: Colours

    /// ECMA-48 §8.3.117, Select Graphic Rendition.
    private enum Paint: String {
        case strong = "1"
        case faint = "2"
        case error = "1;31"
        case good = "32"
        case time = "33"
        case bar = "36"
        case event = "35"
    }

    private func painted(_ text: String, _ paint: Paint) -> String {
        isColoured && !text.isEmpty ? "\u{1B}[\(paint.rawValue)m\(text)\u{1B}[0m" : text
    }
}
