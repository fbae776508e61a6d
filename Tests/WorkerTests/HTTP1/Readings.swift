@testable import Worker

// What the codec made of some bytes, as plain values that a test can compare. Nothing is judged here.

/// One field line with its texts.
struct FieldText: Equatable {
    let name: String
    let value: String
    let known: KnownField
    let isNamedByConnection: Bool

    static func all(_ table: FieldTable, of bytes: [UInt8]) -> [FieldText] {
        table.lines.map {
            FieldText(
                name: String(decoding: bytes[$0.name], as: UTF8.self),
                value: String(decoding: bytes[$0.value], as: UTF8.self),
                known: $0.known, isNamedByConnection: $0.isNamedByConnection)
        }
    }
}

/// A request parser's verdict.
struct RequestReading: Equatable {
    let bytes: [UInt8]
    let outcome: RequestParser.Outcome
    let fields: [FieldText]

    init(_ bytes: [UInt8], limits: RequestParser.Limits = .init(), table: FieldTable) {
        self.bytes = bytes
        outcome = RequestParser(limits: limits).parse(bytes.span, into: table)
        fields = FieldText.all(table, of: bytes)
    }

    init(_ text: String, limits: RequestParser.Limits = .init()) {
        let table = FieldTable()
        self.init(Array(text.utf8), limits: limits, table: table)
    }

    var head: RequestHead? {
        if case .complete(let head) = outcome { head } else { nil }
    }

    var refusal: RequestRefusal? {
        if case .refused(let reason) = outcome { reason } else { nil }
    }

    func text(_ range: Range<Int>?) -> String? {
        range.map { String(decoding: bytes[$0], as: UTF8.self) }
    }
}

/// A response parser's verdict.
struct ResponseReading: Equatable {
    let bytes: [UInt8]
    let outcome: ResponseParser.Outcome
    let fields: [FieldText]

    init(_ bytes: [UInt8], answering method: Method = .get, headBytesMax: Int = 64 * 1024, table: FieldTable) {
        self.bytes = bytes
        outcome = ResponseParser(headBytesMax: headBytesMax).parse(bytes.span, answering: method, into: table)
        fields = FieldText.all(table, of: bytes)
    }

    init(_ text: String, answering method: Method = .get, headBytesMax: Int = 64 * 1024) {
        let table = FieldTable()
        self.init(Array(text.utf8), answering: method, headBytesMax: headBytesMax, table: table)
    }

    var head: ResponseHead? {
        if case .complete(let head) = outcome { head } else { nil }
    }

    func text(_ range: Range<Int>?) -> String? {
        range.map { String(decoding: bytes[$0], as: UTF8.self) }
    }
}

/// A field section's verdict, the section standing at the start of the bytes.
struct SectionReading {
    let outcome: FieldSection.Outcome
    let fields: [FieldText]
    let framing: FramingFields.Verdict
    let connection: FramingFields.ConnectionOptions?

    /// - Parameter section: Field lines with the empty line that ends them.
    init(_ section: String, fieldsMax: Int = 128) {
        let bytes = Array(section.utf8)
        let table = FieldTable()
        outcome = FieldSection.parse(bytes.span, from: 0, into: table, fieldsMax: fieldsMax)
        framing = FramingFields.verdict(bytes.span, table)
        connection = FramingFields.connectionOptions(bytes.span, table)
        fields = FieldText.all(table, of: bytes)
    }
}

/// What the chunked decoder gave for bytes that arrived in pieces.
struct ChunkedReading: Equatable {
    enum End: Equatable { case finished, malformed, incomplete }

    private(set) var data: [UInt8] = []
    private(set) var end = End.incomplete
    private(set) var trailers: [UInt8] = []
    /// Bytes used, counted from the first piece's first byte.
    private(set) var bytesUsed = 0

    /// - Parameter cuts: Where each piece ends, in order; the last is the end of `bytes`.
    init(_ bytes: [UInt8], cuts: [Int]) {
        var decoder = ChunkedDecoder()
        for (low, high) in zip([0] + cuts, cuts) where end == .incomplete {
            take(Array(bytes[low..<high]), &decoder)
        }
        trailers = decoder.trailers
    }

    init(_ text: String) {
        let bytes = Array(text.utf8)
        self.init(bytes, cuts: [bytes.count])
    }

    var dataText: String { String(decoding: data, as: UTF8.self) }
    var trailerText: String { String(decoding: trailers, as: UTF8.self) }

    private mutating func take(_ piece: [UInt8], _ decoder: inout ChunkedDecoder) {
        var index = 0
        defer { bytesUsed += index }
        while true {
            switch decoder.next(piece.span, &index) {
            case .data(let range): data += piece[range]
            case .needsMore: return
            case .finished: return end = .finished
            case .malformed: return end = .malformed
            }
        }
    }
}
