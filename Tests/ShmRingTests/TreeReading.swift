import CShims

@testable import ShmRing

/// A whole record as plain values, so that tests can compare what was written with what was read.
struct TreeReading: Equatable {
    struct Span: Equatable {
        var id: UInt64
        var name: UInt8
        var kind: UInt8
        var status: UInt8
        var parent: Int?
        var startOffsetNs: UInt64
        var endOffsetNs: UInt64
        var attributes: [Attribute] = []
        var events: [Event] = []
        var links: [Link] = []
    }

    struct Link: Equatable {
        var target: LinkTarget
        var attributes: [Attribute] = []
    }

    struct Event: Equatable {
        var name: UInt8
        var offsetNs: UInt64
        var attributes: [Attribute] = []
    }

    struct Attribute: Equatable {
        var key: UInt16
        var value: Value
    }

    enum Value: Equatable {
        case bool(Bool)
        case int(Int64)
        case text(String)
        case texts([String])
    }

    var traceIDHigh: UInt64
    var traceIDLow: UInt64
    var parentSpanID: UInt64
    var baseUnixNs: UInt64
    var traceFlags: UInt8
    var traceState: String
    var spans: [Span] = []
    var isMalformed = false

    init?(_ record: RawSpan) {
        guard var reader = TreeReader(record) else { return nil }
        traceIDHigh = reader.traceID.high
        traceIDLow = reader.traceID.low
        parentSpanID = reader.parentSpanID
        baseUnixNs = reader.baseUnixNs
        traceFlags = reader.traceFlags
        traceState = Self.text(reader.traceState, of: reader.bytes)
        while let span = reader.nextSpan() { spans.append(Self.read(span, &reader)) }
        isMalformed = reader.isMalformed
    }

    init?(_ record: [UInt8]) {
        unsafe self.init(record.span.bytes)
    }

    /// The texts or numbers of one span's attributes.
    func value(_ key: AttributeKey, span index: Int = 0) -> Value? {
        spans[index].attributes.first { $0.key == key.rawValue }?.value
    }

    private static func read(_ span: TreeReader.SpanRecord, _ reader: inout TreeReader) -> Span {
        var result = Span(
            id: span.id, name: span.name, kind: span.kind, status: span.status, parent: span.parentIndex,
            startOffsetNs: span.startOffsetNs, endOffsetNs: span.endOffsetNs)
        var cursor = span.attributes
        result.attributes = attributes(&cursor, &reader)
        for _ in 0..<span.eventCount {
            guard let event = reader.nextEvent(cursor, of: span) else { break }
            cursor = event.attributes
            result.events.append(
                Event(name: event.name, offsetNs: event.offsetNs, attributes: attributes(&cursor, &reader)))
        }
        for _ in 0..<span.linkCount {
            guard let link = reader.nextLink(cursor, of: span) else { break }
            cursor = link.attributes
            result.links.append(Link(target: link.target, attributes: attributes(&cursor, &reader)))
        }
        return result
    }

    private static func attributes(
        _ cursor: inout TreeReader.AttributeCursor, _ reader: inout TreeReader
    ) -> [Attribute] {
        var result: [Attribute] = []
        while let (key, value) = reader.nextAttribute(&cursor) {
            result.append(Attribute(key: key, value: plain(value, reader)))
        }
        return result
    }

    private static func plain(_ value: TreeReader.Value, _ reader: borrowing TreeReader) -> Value {
        switch value {
        case .bool(let bool): return .bool(bool)
        case .int(let int): return .int(int)
        case .string(let range): return .text(text(range, of: reader.bytes))
        case .strings(var rest):
            var texts: [String] = []
            while let range = reader.nextString(&rest) { texts.append(text(range, of: reader.bytes)) }
            return .texts(texts)
        }
    }

    private static func text(_ range: Range<Int>, of bytes: RawSpan) -> String {
        unsafe bytes.extracting(range).withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
    }
}
