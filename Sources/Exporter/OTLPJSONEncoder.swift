import ShmRing

/// Encodes spans as OTLP/JSON (OTLP specification 1.x, "JSON Protobuf Encoding"): ids in hexadecimal, 64-bit
/// integers as decimal strings, enums as numbers, names in lowerCamelCase.
///
/// What a record says can never break the syntax: texts are escaped, and repaired where they are not UTF-8.
struct OTLPJSONEncoder: OTLPFormat, ~Copyable {
    static let contentType = "application/json"

    private var out = ByteWriter()
    /// For every key: `{"key":"…","value":{`.
    private let keyTexts: [[UInt8]]
    private let head: [UInt8]
    private var hasSpans = false
    private var hasAttributes = false
    private var hasEvents = false
    private var hasLinks = false

    init(_ resource: ExporterConfiguration.Resource) {
        var texts = [[UInt8]](repeating: [], count: OutputKey.tableSize)
        for key in OutputKey.all {
            texts[Int(key.rawValue)] = Array("{\"key\":\"\(key.text)\",\"value\":{".utf8)
        }
        keyTexts = texts
        head = Self.head(resource)
        out.append(head)
    }

    var byteCount: Int { out.count }

    mutating func rollBack(to mark: Int) {
        out.truncate(to: mark)
        hasSpans = mark > head.count
    }

    mutating func finish(replacement: ByteStorage) -> PostBody {
        out.append("]}]}]}")
        let body = out.take(replacement: replacement)
        out.append(head)
        hasSpans = false
        return body
    }

    private static func head(_ resource: ExporterConfiguration.Resource) -> [UInt8] {
        var out = ByteWriter()
        out.append("{\"resourceSpans\":[{\"resource\":{\"attributes\":[")
        for (index, attribute) in resource.attributes.enumerated() {
            out.append(index == 0 ? "{\"key\":" : ",{\"key\":")
            out.append(json: attribute.key)
            switch attribute.value {
            case .string(let text):
                out.append(",\"value\":{\"stringValue\":")
                out.append(json: text)
            case .int(let number):
                out.append(",\"value\":{\"intValue\":\"")
                out.append(decimal: number)
                out.append("\"")
            }
            out.append("}}")
        }
        out.append("]},\"scopeSpans\":[{\"scope\":{\"name\":")
        out.append(json: resource.scopeName)
        out.append(",\"version\":")
        out.append(json: resource.scopeVersion)
        out.append("},\"spans\":[")
        return out.take(replacement: ByteStorage()).bytes
    }

    // MARK: Spans

    mutating func spanBegan(_ span: SpanFacts, of tree: TreeReader) {
        out.append(hasSpans ? ",{\"traceId\":\"" : "{\"traceId\":\"")
        hasSpans = true
        out.append(hex: tree.traceID.high)
        out.append(hex: tree.traceID.low)
        out.append("\",\"spanId\":\"")
        out.append(hex: span.id)
        if span.parentID != 0 {
            out.append("\",\"parentSpanId\":\"")
            out.append(hex: span.parentID)
        }
        if !tree.traceState.isEmpty {
            out.append("\",\"traceState\":")
            out.append(json: tree.bytes, tree.traceState)
            out.append(",\"flags\":")
        } else {
            out.append("\",\"flags\":")
        }
        out.append(decimal: UInt64(span.flags))
        out.append(",\"name\":\"")
        out.append(span.name.text)
        out.append("\",\"kind\":")
        out.append(decimal: UInt64(span.kind.rawValue))
        out.append(",\"startTimeUnixNano\":\"")
        out.append(decimal: span.startUnixNs)
        out.append("\",\"endTimeUnixNano\":\"")
        out.append(decimal: span.endUnixNs)
        out.append("\",\"attributes\":[")
        hasAttributes = false
        hasEvents = false
        hasLinks = false
    }

    mutating func eventBegan(_ name: EventName, unixNs: UInt64) {
        out.append(hasEvents ? ",{\"timeUnixNano\":\"" : "],\"events\":[{\"timeUnixNano\":\"")
        hasEvents = true
        out.append(decimal: unixNs)
        out.append("\",\"name\":\"")
        out.append(name.text)
        out.append("\",\"attributes\":[")
        hasAttributes = false
    }

    mutating func eventEnded() {
        out.append("]}")
    }

    mutating func linkBegan(_ target: LinkTarget, flags: UInt32) {
        out.append(hasLinks ? ",{\"traceId\":\"" : "],\"links\":[{\"traceId\":\"")
        hasLinks = true
        out.append(hex: target.traceIDHigh)
        out.append(hex: target.traceIDLow)
        out.append("\",\"spanId\":\"")
        out.append(hex: target.spanID)
        out.append("\",\"flags\":")
        out.append(decimal: UInt64(flags))
        out.append(",\"attributes\":[")
        hasAttributes = false
    }

    mutating func linkEnded() {
        out.append("]}")
    }

    mutating func spanEnded(status: SpanStatus, message: Range<Int>?, of tree: TreeReader) {
        out.append("]")
        if status != .unset {
            out.append(",\"status\":{\"code\":")
            out.append(decimal: UInt64(status.rawValue))
            if let message {
                out.append(",\"message\":")
                out.append(json: tree.bytes, message)
            }
            out.append("}")
        }
        out.append("}")
    }

    mutating func attribute(_ key: OutputKey, _ value: TreeReader.Value, of tree: TreeReader) {
        if hasAttributes { out.append(UInt8(ascii: ",")) }
        hasAttributes = true
        out.append(keyTexts[Int(key.rawValue)])
        switch value {
        case .bool(let flag): out.append(flag ? "\"boolValue\":true" : "\"boolValue\":false")
        case .int(let number):
            out.append("\"intValue\":\"")
            out.append(decimal: number)
            out.append("\"")
        case .string(let range):
            out.append("\"stringValue\":")
            out.append(json: tree.bytes, range)
        case .strings(let range): appendStrings(range, of: tree)
        }
        out.append("}}")
    }

    private mutating func appendStrings(_ range: Range<Int>, of tree: TreeReader) {
        out.append("\"arrayValue\":{\"values\":[")
        var rest = range
        var isFirst = true
        while let text = tree.nextString(&rest) {
            out.append(isFirst ? "{\"stringValue\":" : ",{\"stringValue\":")
            isFirst = false
            out.append(json: tree.bytes, text)
            out.append("}")
        }
        out.append("]}")
    }
}

/// JSON's tokens (RFC 8259).
extension ByteWriter {
    mutating func append(decimal value: Int64) {
        if value < 0 { append(UInt8(ascii: "-")) }
        append(decimal: value.magnitude)
    }

    /// A string token from a record. Copied first and judged in the copy, as its writer may go on writing.
    mutating func append(json record: RawSpan, _ range: Range<Int>) {
        append(UInt8(ascii: "\""))
        let start = count
        _ = append(record, range)
        let isPlain = withBytes(from: start) { text in
            text.indices.allSatisfy { Self.isPlain(text[$0]) }
        }
        if isPlain {
            append(UInt8(ascii: "\""))
        } else {
            truncate(to: start - 1)
            append(json: UTF8Repair.text(record, range))
        }
    }

    /// A string token (RFC 8259 §7).
    mutating func append(json text: String) {
        append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                append(UInt8(ascii: "\\"))
                append(byte)
            case 0..<0x20, 0x7F:
                append("\\u00")
                append(Self.hexDigit(UInt64(byte >> 4)))
                append(Self.hexDigit(UInt64(byte & 15)))
            default: append(byte)
            }
        }
        append(UInt8(ascii: "\""))
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte < 0x7F && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }
}
