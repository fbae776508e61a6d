import ShmRing

/// A record as text, one line a fact, so that a test can compare a whole tree at once:
///
///     proxy_request SERVER 0-900 ERROR
///     | http.method = "GET"
///     ! retry_triggered at 60
///     ! | retry.attempt = 1
///     > link
///     > | connection.id = "w0-1"
///       backend_selection INTERNAL 10-20
///
/// Children are indented under their parent. Unsafe: views a record's text as bytes.
struct TracePicture: Equatable {
    struct Span: Equatable {
        var name: String
        var id: UInt64
        var parent: Int?
        var start: UInt64
        var end: UInt64
        var eventTimes: [UInt64]
        var lines: [String]
        var links: [LinkTarget]
    }

    var traceIDHigh: UInt64
    var traceIDLow: UInt64
    var parentSpanID: UInt64
    var baseUnixNs: UInt64
    var flags: UInt8
    var traceState: String
    var spans: [Span] = []
    /// How it went through the ring.
    var isRequestRecord = false

    /// Nil for a record that contradicts itself. A request record is shown as the tree that it stands for.
    init?(_ record: RawSpan) {
        let isRequest = RequestReader.isRequest(record)
        guard var picture = RequestExpander().withTree(record, { TracePicture(tree: $0) }) else { return nil }
        picture.isRequestRecord = isRequest
        self = picture
    }

    private init?(tree record: RawSpan) {
        guard var reader = TreeReader(record) else { return nil }
        (traceIDHigh, traceIDLow) = reader.traceID
        parentSpanID = reader.parentSpanID
        baseUnixNs = reader.baseUnixNs
        flags = reader.traceFlags
        traceState = Self.text(reader.traceState, of: reader.bytes)
        while let span = reader.nextSpan() { append(span, &reader) }
        if reader.isMalformed { return nil }
    }

    var lines: [String] { spans.flatMap(\.lines) }

    func span(_ name: String) -> Span? { spans.first { $0.name == name } }
    func spans(_ name: String) -> [Span] { spans.filter { $0.name == name } }

    /// What contradicts the rule that a span lies within its parent and an event within its span.
    var misplaced: [String] {
        var found: [String] = []
        for span in spans {
            if let parent = span.parent.map({ spans[$0] }), span.start < parent.start || span.end > parent.end {
                found.append("\(span.name) \(span.start)-\(span.end) in \(parent.name) \(parent.start)-\(parent.end)")
            }
            for time in span.eventTimes where time < span.start || time > span.end {
                found.append("event at \(time) on \(span.name) \(span.start)-\(span.end)")
            }
        }
        return found
    }

    private mutating func append(_ record: TreeReader.SpanRecord, _ reader: inout TreeReader) {
        var depth = 0
        var ancestor = record.parentIndex
        while let index = ancestor {
            depth += 1
            ancestor = spans[index].parent
        }
        let indent = String(repeating: "  ", count: depth)
        let name = SpanName(rawValue: record.name).map { "\($0.text)" } ?? "?"
        let kind = SpanKind(rawValue: record.kind).map { "\($0)".uppercased() } ?? "?"
        let status = SpanStatus(rawValue: record.status).map { $0 == .unset ? "" : " \($0)".uppercased() } ?? " ?"
        var lines = ["\(indent)\(name) \(kind) \(record.startOffsetNs)-\(record.endOffsetNs)\(status)"]
        var cursor = record.attributes
        lines += Self.attributes(&cursor, &reader).map { "\(indent)| \($0)" }
        var times: [UInt64] = []
        var links: [LinkTarget] = []
        for _ in 0..<record.eventCount {
            guard let event = reader.nextEvent(cursor, of: record) else { break }
            cursor = event.attributes
            times.append(event.offsetNs)
            lines.append(
                "\(indent)! \(EventName(rawValue: event.name).map { "\($0.text)" } ?? "?") at \(event.offsetNs)")
            lines += Self.attributes(&cursor, &reader).map { "\(indent)! | \($0)" }
        }
        for _ in 0..<record.linkCount {
            guard let link = reader.nextLink(cursor, of: record) else { break }
            cursor = link.attributes
            links.append(link.target)
            lines.append("\(indent)> link")
            lines += Self.attributes(&cursor, &reader).map { "\(indent)> | \($0)" }
        }
        spans.append(
            Span(
                name: name, id: record.id, parent: record.parentIndex, start: record.startOffsetNs,
                end: record.endOffsetNs, eventTimes: times, lines: lines,
                links: links))
    }

    private static func attributes(
        _ cursor: inout TreeReader.AttributeCursor, _ reader: inout TreeReader
    ) -> [String] {
        var lines: [String] = []
        while let (key, value) = reader.nextAttribute(&cursor) {
            lines.append("\(AttributeKey(rawValue: key).map { "\($0.text)" } ?? "?") = \(picture(value, reader))")
        }
        return lines
    }

    private static func picture(_ value: TreeReader.Value, _ reader: borrowing TreeReader) -> String {
        switch value {
        case .bool(let bool): return "\(bool)"
        case .int(let int): return "\(int)"
        case .string(let range): return "\"\(text(range, of: reader.bytes))\""
        case .strings(var rest):
            var texts: [String] = []
            while let range = reader.nextString(&rest) { texts.append("\"\(text(range, of: reader.bytes))\"") }
            return "[" + texts.joined(separator: ", ") + "]"
        }
    }

    private static func text(_ range: Range<Int>, of bytes: RawSpan) -> String {
        unsafe bytes.extracting(range).withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
    }
}
