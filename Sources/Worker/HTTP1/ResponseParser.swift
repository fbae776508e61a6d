/// What was understood of a response's head. Ranges are offsets into the head's bytes.
struct ResponseHead: Equatable {
    var status = 0
    var minorVersion = 1
    /// Status code, space and reason phrase, as they came.
    var statusText: Range<Int> = 0..<0
    var framing: BodyFraming = .none
    /// Content-Length as the backend said it; with HEAD and 304 it frames nothing (RFC 9110 §8.6).
    var contentLength: Int?
    var connection = FramingFields.ConnectionOptions()
    var fieldsStart = 0
    var headBytes = 0

    /// 100 to 199: another head of this response follows (RFC 9110 §15.2).
    var isInterim: Bool { status < 200 }

    /// Whether the backend will read another request on this connection (RFC 9112 §9.3).
    var isPersistent: Bool {
        guard framing != .untilClose else { return false }
        return minorVersion >= 1 ? !connection.isClose : connection.isKeepAlive && !connection.isClose
    }
}

/// Parses one response head (RFC 9112 §4 to §6). A backend is trusted no more than a client: what could
/// be read two ways is malformed, and the client gets a 502 instead. Every verdict but `incomplete` is
/// final: more bytes behind cannot change it.
struct ResponseParser {
    var headBytesMax = 64 * 1024
    /// More fields than this are malformed.
    static let fieldsMax = 512
    /// Interim responses to one request; a backend that sends more is not making sense.
    static let interimMax = 32

    enum Outcome: Equatable {
        case complete(ResponseHead)
        case incomplete
        case malformed
        case headTooLarge
    }

    /// - Parameters:
    ///   - bytes: From the response's first byte.
    ///   - method: The request's method, which decides whether a body can follow.
    ///   - table: Reset and filled with the field lines.
    func parse(_ bytes: Span<UInt8>, answering method: Method, into table: FieldTable) -> Outcome {
        table.reset()
        let bytes = bytes.extracting(first: headBytesMax)
        var head = ResponseHead()
        switch parseStatusLine(bytes, into: &head) {
        case .done: break
        case .incomplete: return bytes.count == headBytesMax ? .headTooLarge : .incomplete
        case .malformed: return .malformed
        }
        switch FieldSection.parse(bytes, from: head.fieldsStart, into: table, fieldsMax: Self.fieldsMax) {
        case .complete(let end): head.headBytes = end
        case .incomplete: return bytes.count == headBytesMax ? .headTooLarge : .incomplete
        case .malformed, .tooManyFields: return .malformed
        }
        guard interpret(bytes, answering: method, table, &head) else { return .malformed }
        return .complete(head)
    }

    private enum LineOutcome {
        case done
        case incomplete
        case malformed
    }

    /// `HTTP/1.x SP 3DIGIT [SP reason] CRLF`
    private func parseStatusLine(_ bytes: Span<UInt8>, into head: inout ResponseHead) -> LineOutcome {
        for offset in 0..<min(bytes.count, 12) {
            let byte = bytes[offset]
            let isRight =
                switch offset {
                case 0...6: byte == ("HTTP/1." as StaticString).byte(at: offset)
                case 8: byte == 0x20
                case 9: byte >= UInt8(ascii: "1") && byte <= UInt8(ascii: "9")
                default: isDigit(byte)
                }
            guard isRight else { return .malformed }
        }
        guard bytes.count > 12 else { return .incomplete }
        head.minorVersion = bytes[7] == UInt8(ascii: "0") ? 0 : 1
        head.status = FramingFields.decimal(bytes, 9..<12) ?? 0
        guard bytes[12] == 0x20 || bytes[12] == 0x0D else { return .malformed }
        let end = bytes.endOfFieldText(from: 12)
        guard end + 1 < bytes.count else {
            return end < bytes.count && bytes[end] != 0x0D ? .malformed : .incomplete
        }
        guard bytes[end] == 0x0D, bytes[end + 1] == 0x0A else { return .malformed }
        head.statusText = 9..<end
        head.fieldsStart = end + 2
        return .done
    }

    private func interpret(
        _ bytes: Span<UInt8>, answering method: Method, _ table: FieldTable, _ head: inout ResponseHead
    ) -> Bool {
        guard let connection = FramingFields.connectionOptions(bytes, table) else { return false }
        head.connection = connection
        let verdict = FramingFields.verdict(bytes, table)
        if case .length(let count) = verdict { head.contentLength = count }
        if verdict == .ambiguous || verdict == .unknownCoding { return false }
        if Self.hasNoBody(status: head.status, answering: method) {
            head.framing = .none
            return true
        }
        switch verdict {
        case .none: head.framing = .untilClose
        case .length(let count): head.framing = count == 0 ? .none : .length(count)
        case .chunked:
            guard head.minorVersion >= 1 else { return false }
            head.framing = .chunked
        case .ambiguous, .unknownCoding: return false
        }
        return true
    }

    /// RFC 9112 §6.3, first rule.
    static func hasNoBody(status: Int, answering method: Method) -> Bool {
        method == .head || status < 200 || status == 204 || status == 304
    }
}
