/// What the body of a 2xx answer says (OTLP specification, "Partial Success"). Whatever it says, the batch
/// is not sent again.
enum PartialSuccess: Equatable {
    /// Every span was taken: an empty body, or a message without rejected spans.
    case complete
    /// Spans were rejected, or none and the collector has advice.
    case partial(rejectedSpans: Int64, message: String)
    /// The body is no ExportTraceServiceResponse.
    case nonsense

    /// Longest message kept, in bytes.
    static let messageBytesMax = 512

    /// - Parameter body: Protobuf or JSON. No protobuf answer begins with `{`; one may well begin with what
    ///   in JSON is a line feed.
    init(body: [UInt8]) {
        self = body.first == UInt8(ascii: "{") ? .nonsense : Self.fromProtobuf(body[...])
        if self == .nonsense { self = Self.fromJSON(body) }
    }

    private init(rejectedSpans: Int64, message: String) {
        self =
            rejectedSpans == 0 && message.isEmpty
            ? .complete : .partial(rejectedSpans: rejectedSpans, message: message)
    }

    /// ExportTraceServiceResponse { partial_success = 1 { rejected_spans = 1, error_message = 2 } }
    private static func fromProtobuf(_ body: ArraySlice<UInt8>) -> PartialSuccess {
        var rejected: Int64 = 0
        var message = ""
        var response = ProtobufReader(body)
        while let field = response.next() {
            guard field.number == 1, case .bytes(let content) = field.value else { continue }
            var partial = ProtobufReader(content)
            while let field = partial.next() {
                switch (field.number, field.value) {
                case (1, .varint(let count)): rejected = Int64(bitPattern: count)
                case (2, .bytes(let text)): message = self.message(text)
                default: continue
                }
            }
            guard !partial.isMalformed else { return .nonsense }
        }
        return response.isMalformed ? .nonsense : PartialSuccess(rejectedSpans: rejected, message: message)
    }

    /// {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "…"}}; the number may stand without quotes.
    private static func fromJSON(_ body: [UInt8]) -> PartialSuccess {
        guard case .object(let response)? = JSONValue(parsing: body) else { return .nonsense }
        guard let partial = response["partialSuccess"] else { return .complete }
        guard case .object(let fields) = partial else { return partial == .null ? .complete : .nonsense }
        var rejected: Int64 = 0
        switch fields["rejectedSpans"] {
        case nil, .null: break
        case .string(let text), .number(let text):
            guard let count = Int64(text) else { return .nonsense }
            rejected = count
        default: return .nonsense
        }
        guard case .string(let text) = fields["errorMessage"] ?? .string("") else { return .nonsense }
        return PartialSuccess(rejectedSpans: rejected, message: message(Array(text.utf8)[...]))
    }

    private static func message(_ bytes: ArraySlice<UInt8>) -> String {
        String(decoding: bytes.prefix(messageBytesMax), as: UTF8.self)
    }
}

/// Reads the fields of one protobuf message from somebody who may send anything.
struct ProtobufReader {
    enum Value: Equatable {
        case varint(UInt64)
        case fixed32(UInt32)
        case fixed64(UInt64)
        case bytes(ArraySlice<UInt8>)
    }

    private var rest: ArraySlice<UInt8>
    private(set) var isMalformed = false

    init(_ bytes: ArraySlice<UInt8>) {
        rest = bytes
    }

    /// The next field, or nil at the end or where the message breaks the encoding.
    mutating func next() -> (number: UInt64, value: Value)? {
        guard !rest.isEmpty, !isMalformed else { return nil }
        guard let tag = varint(), tag >> 3 != 0, let value = value(wireType: tag & 7) else {
            isMalformed = true
            return nil
        }
        return (tag >> 3, value)
    }

    private mutating func value(wireType: UInt64) -> Value? {
        switch wireType {
        case 0: varint().map { .varint($0) }
        case 1: bytes(8).map { .fixed64($0.reversed().reduce(0) { $0 << 8 | UInt64($1) }) }
        case 2: varint().flatMap { Int(exactly: $0) }.flatMap { bytes($0) }.map { .bytes($0) }
        case 5: bytes(4).map { .fixed32($0.reversed().reduce(0) { $0 << 8 | UInt32($1) }) }
        default: nil
        }
    }

    private mutating func bytes(_ count: Int) -> ArraySlice<UInt8>? {
        guard count <= rest.count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count)
    }

    private mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard let byte = rest.popFirst() else { return nil }
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
        }
        return nil
    }
}
