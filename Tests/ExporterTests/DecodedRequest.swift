@testable import Exporter

/// An ExportTraceServiceRequest as the tests see it, whichever encoding it came in.
struct DecodedRequest: Equatable {
    enum Value: Equatable {
        case string(String)
        case bool(Bool)
        case int(Int64)
        case array([Value])
    }

    struct Attribute: Equatable {
        let key: String
        let value: Value
    }

    struct Event: Equatable {
        var unixNs: UInt64 = 0
        var name = ""
        var attributes: [Attribute] = []
    }

    struct Link: Equatable {
        var traceID = ""
        var spanID = ""
        var flags: UInt32 = 0
        var attributes: [Attribute] = []
    }

    struct Span: Equatable {
        var traceID = ""
        var id = ""
        var parentID = ""
        var traceState = ""
        var flags: UInt32 = 0
        var name = ""
        var kind: UInt64 = 0
        var startUnixNs: UInt64 = 0
        var endUnixNs: UInt64 = 0
        var attributes: [Attribute] = []
        var events: [Event] = []
        var links: [Link] = []
        var statusCode: UInt64 = 0
        var statusMessage = ""

        subscript(key: String) -> Value? { attributes.first { $0.key == key }?.value }
    }

    var resource: [Attribute] = []
    var scopeName = ""
    var scopeVersion = ""
    var spans: [Span] = []
}

/// What a decoder of the tests says about bytes that are not what they should be.
struct Undecodable: Error {
    let what: String
}

/// Field numbers as in the official .proto files, written down a second time on purpose.
extension DecodedRequest {
    init(protobuf bytes: [UInt8]) throws {
        for (number, resourceSpans) in try Wire.fields(bytes[...]) where number == 1 {
            for (number, value) in try Wire.fields(try resourceSpans.message) {
                switch number {
                case 1:
                    resource += try Wire.fields(try value.message).map { try Self.attribute($0.value.message) }
                case 2: try addScopeSpans(value.message)
                default: throw Undecodable(what: "ResourceSpans field \(number)")
                }
            }
        }
    }

    private mutating func addScopeSpans(_ bytes: ArraySlice<UInt8>) throws {
        for (number, value) in try Wire.fields(bytes) {
            switch number {
            case 1:
                for (number, value) in try Wire.fields(value.message) {
                    if number == 1 { scopeName = try value.text } else { scopeVersion = try value.text }
                }
            case 2: spans.append(try Self.span(value.message))
            default: throw Undecodable(what: "ScopeSpans field \(number)")
            }
        }
    }

    private static func span(_ bytes: ArraySlice<UInt8>) throws -> Span {
        var span = Span()
        for (number, value) in try Wire.fields(bytes) {
            switch number {
            case 1: span.traceID = try value.hex(bytes: 16)
            case 2: span.id = try value.hex(bytes: 8)
            case 3: span.traceState = try value.text
            case 4: span.parentID = try value.hex(bytes: 8)
            case 5: span.name = try value.text
            case 6: span.kind = try value.integer
            case 7: span.startUnixNs = try value.fixed(bytes: 8)
            case 8: span.endUnixNs = try value.fixed(bytes: 8)
            case 9: span.attributes.append(try attribute(value.message))
            case 11: span.events.append(try event(value.message))
            case 13: span.links.append(try link(value.message))
            case 15:
                for (number, value) in try Wire.fields(value.message) {
                    if number == 2 { span.statusMessage = try value.text } else { span.statusCode = try value.integer }
                }
            case 16: span.flags = UInt32(try value.fixed(bytes: 4))
            default: throw Undecodable(what: "Span field \(number)")
            }
        }
        return span
    }

    private static func event(_ bytes: ArraySlice<UInt8>) throws -> Event {
        var event = Event()
        for (number, value) in try Wire.fields(bytes) {
            switch number {
            case 1: event.unixNs = try value.fixed(bytes: 8)
            case 2: event.name = try value.text
            case 3: event.attributes.append(try attribute(value.message))
            default: throw Undecodable(what: "Event field \(number)")
            }
        }
        return event
    }

    private static func link(_ bytes: ArraySlice<UInt8>) throws -> Link {
        var link = Link()
        for (number, value) in try Wire.fields(bytes) {
            switch number {
            case 1: link.traceID = try value.hex(bytes: 16)
            case 2: link.spanID = try value.hex(bytes: 8)
            case 4: link.attributes.append(try attribute(value.message))
            case 6: link.flags = UInt32(try value.fixed(bytes: 4))
            default: throw Undecodable(what: "Link field \(number)")
            }
        }
        return link
    }

    private static func attribute(_ bytes: ArraySlice<UInt8>) throws -> Attribute {
        let fields = try Wire.fields(bytes)
        guard fields.count == 2, fields[0].number == 1, fields[1].number == 2 else {
            throw Undecodable(what: "KeyValue \(fields.map(\.number))")
        }
        return Attribute(key: try fields[0].value.text, value: try anyValue(fields[1].value.message))
    }

    private static func anyValue(_ bytes: ArraySlice<UInt8>) throws -> Value {
        let fields = try Wire.fields(bytes)
        guard fields.count == 1 else { throw Undecodable(what: "AnyValue with \(fields.count) fields") }
        let value = fields[0].value
        switch fields[0].number {
        case 1: return .string(try value.text)
        case 2: return .bool(try value.integer != 0)
        case 3: return .int(Int64(bitPattern: try value.integer))
        case 5: return .array(try Wire.fields(value.message).map { try anyValue($0.value.message) })
        default: throw Undecodable(what: "AnyValue field \(fields[0].number)")
        }
    }
}

/// Protobuf's wire format, strictly.
private enum Wire {
    case number(UInt64)
    case fixed(ArraySlice<UInt8>)
    case content(ArraySlice<UInt8>)

    static func fields(_ bytes: ArraySlice<UInt8>) throws -> [(number: UInt64, value: Wire)] {
        var rest = bytes
        var fields: [(number: UInt64, value: Wire)] = []
        while !rest.isEmpty {
            let tag = try varint(&rest)
            switch tag & 7 {
            case 0: fields.append((tag >> 3, .number(try varint(&rest))))
            case 1: fields.append((tag >> 3, .fixed(try take(8, &rest))))
            case 2: fields.append((tag >> 3, .content(try take(Int(try varint(&rest)), &rest))))
            case 5: fields.append((tag >> 3, .fixed(try take(4, &rest))))
            default: throw Undecodable(what: "wire type \(tag & 7)")
            }
        }
        return fields
    }

    private static func varint(_ rest: inout ArraySlice<UInt8>) throws -> UInt64 {
        var value: UInt64 = 0
        for shift in 0..<10 {
            guard let byte = rest.popFirst() else { throw Undecodable(what: "a cut varint") }
            value |= UInt64(byte & 0x7F) << UInt64(7 * shift)
            if byte & 0x80 == 0 { return value }
        }
        throw Undecodable(what: "an endless varint")
    }

    private static func take(_ count: Int, _ rest: inout ArraySlice<UInt8>) throws -> ArraySlice<UInt8> {
        guard count >= 0, count <= rest.count else { throw Undecodable(what: "\(count) bytes of \(rest.count)") }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }

    var message: ArraySlice<UInt8> {
        get throws {
            guard case .content(let bytes) = self else { throw Undecodable(what: "no length before a message") }
            return bytes
        }
    }

    var text: String {
        get throws {
            guard let text = String(validating: try message, as: UTF8.self) else {
                throw Undecodable(what: "a string that is not UTF-8")
            }
            return text
        }
    }

    var integer: UInt64 {
        get throws {
            guard case .number(let value) = self else { throw Undecodable(what: "no varint") }
            return value
        }
    }

    func fixed(bytes count: Int) throws -> UInt64 {
        guard case .fixed(let bytes) = self, bytes.count == count else { throw Undecodable(what: "no fixed field") }
        return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    func hex(bytes count: Int) throws -> String {
        let bytes = try message
        guard bytes.count == count else { throw Undecodable(what: "an id of \(bytes.count) bytes") }
        return bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// OTLP/JSON, read with the product's JSON parser, which has tests of its own.
extension DecodedRequest {
    init(json bytes: [UInt8]) throws {
        guard String(validating: bytes, as: UTF8.self) != nil else { throw Undecodable(what: "JSON that is not UTF-8") }
        guard let document = JSONValue(parsing: bytes) else { throw Undecodable(what: "no JSON") }
        for resourceSpans in try document["resourceSpans"].elements {
            resource += try Self.attributes(resourceSpans["resource"]["attributes"])
            for scopeSpans in try resourceSpans["scopeSpans"].elements {
                scopeName = try scopeSpans["scope"]["name"].text
                scopeVersion = try scopeSpans["scope"]["version"].text
                spans += try scopeSpans["spans"].elements.map { try Self.span($0) }
            }
        }
    }

    private static func span(_ json: JSONValue) throws -> Span {
        var span = Span()
        span.traceID = try json["traceId"].text
        span.id = try json["spanId"].text
        span.parentID = json.member("parentSpanId")?.textOrNil ?? ""
        span.traceState = json.member("traceState")?.textOrNil ?? ""
        span.flags = UInt32(try json["flags"].unsigned)
        span.name = try json["name"].text
        span.kind = try json["kind"].unsigned
        span.startUnixNs = try json["startTimeUnixNano"].quotedUnsigned
        span.endUnixNs = try json["endTimeUnixNano"].quotedUnsigned
        span.attributes = try attributes(json["attributes"])
        span.events = try (json.member("events")?.elements ?? []).map {
            Event(
                unixNs: try $0["timeUnixNano"].quotedUnsigned, name: try $0["name"].text,
                attributes: try attributes($0["attributes"]))
        }
        span.links = try (json.member("links")?.elements ?? []).map {
            Link(
                traceID: try $0["traceId"].text, spanID: try $0["spanId"].text,
                flags: UInt32(try $0["flags"].unsigned), attributes: try attributes($0["attributes"]))
        }
        if let status = json.member("status") {
            span.statusCode = try status["code"].unsigned
            span.statusMessage = status.member("message")?.textOrNil ?? ""
        }
        return span
    }

    private static func attributes(_ json: JSONValue) throws -> [Attribute] {
        try json.elements.map { Attribute(key: try $0["key"].text, value: try value($0["value"])) }
    }

    private static func value(_ json: JSONValue) throws -> Value {
        guard case .object(let members) = json, members.count == 1, let (name, content) = members.first else {
            throw Undecodable(what: "no value in \(json)")
        }
        switch (name, content) {
        case ("stringValue", .string(let text)): return .string(text)
        case ("boolValue", .bool(let flag)): return .bool(flag)
        case ("intValue", .string(let text)):
            guard let number = Int64(text) else { throw Undecodable(what: "intValue \(text)") }
            return .int(number)
        case ("arrayValue", _): return .array(try content["values"].elements.map { try value($0) })
        default: throw Undecodable(what: "value \(name)")
        }
    }
}

extension JSONValue {
    func member(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members[name]
    }

    subscript(name: String) -> JSONValue {
        get throws {
            guard let value = member(name) else { throw Undecodable(what: "no member \(name)") }
            return value
        }
    }

    var elements: [JSONValue] {
        get throws {
            guard case .array(let elements) = self else { throw Undecodable(what: "no array") }
            return elements
        }
    }

    var textOrNil: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    var text: String {
        get throws {
            guard let text = textOrNil else { throw Undecodable(what: "no string") }
            return text
        }
    }

    var unsigned: UInt64 {
        get throws {
            guard case .number(let text) = self, let value = UInt64(text) else { throw Undecodable(what: "no number") }
            return value
        }
    }

    var quotedUnsigned: UInt64 {
        get throws {
            guard let value = UInt64(try text) else { throw Undecodable(what: "no quoted number") }
            return value
        }
    }
}
