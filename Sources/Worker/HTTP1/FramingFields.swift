/// Reads the fields that frame a message or rule its connection. One place for requests and responses,
/// because a difference between the two readings is how requests are smuggled.
enum FramingFields {
    /// What Content-Length and Transfer-Encoding say together.
    enum Verdict: Equatable {
        case none
        case length(Int)
        case chunked
        /// Can be read two ways, or not at all (RFC 9112 §6.3).
        case ambiguous
        /// A transfer coding other than chunked.
        case unknownCoding
    }

    static func verdict(_ bytes: Span<UInt8>, _ table: FieldTable) -> Verdict {
        let hasLength = table.contains(.contentLength)
        if table.contains(.transferEncoding) {
            if hasLength { return .ambiguous }
            return transferCoding(bytes, table)
        }
        guard hasLength else { return .none }
        guard table.count(of: .contentLength) == 1, let field = table.first(.contentLength),
            let length = decimal(bytes, field.value)
        else { return .ambiguous }
        return .length(length)
    }

    /// Exactly one field with exactly the word chunked; anything else is refused.
    private static func transferCoding(_ bytes: Span<UInt8>, _ table: FieldTable) -> Verdict {
        guard table.count(of: .transferEncoding) == 1, let field = table.first(.transferEncoding) else {
            return .ambiguous
        }
        if bytes.extracting(field.value).matchesIgnoringCase("chunked") { return .chunked }
        return isTokenList(bytes, field.value) ? .unknownCoding : .ambiguous
    }

    /// A list of tokens of which none is chunked, or only the last is: codings that we do not know.
    private static func isTokenList(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Bool {
        var members = ListMembers(value)
        var count = 0
        var chunkedAt: Int?
        while let member = members.next(in: bytes) {
            for index in member where !isTokenByte(bytes[index]) { return false }
            if bytes.extracting(member).matchesIgnoringCase("chunked") {
                guard chunkedAt == nil else { return false }
                chunkedAt = count
            }
            count += 1
        }
        return count > 0 && (chunkedAt == nil || chunkedAt == count - 1)
    }

    /// 1*DIGIT without sign, list or overflow (RFC 9110 §8.6).
    static func decimal(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Int? {
        guard !range.isEmpty, range.count <= 18 else { return nil }
        var value = 0
        for index in range {
            guard isDigit(bytes[index]) else { return nil }
            value = value * 10 + Int(bytes[index] - UInt8(ascii: "0"))
        }
        return value
    }

    /// What the Connection fields ask for.
    struct ConnectionOptions: Equatable {
        var isClose = false
        var isKeepAlive = false
        var isUpgrade = false
    }

    /// More options than this that name fields are refused: each is compared with every field, and a head
    /// full of commas would cost as much as thousands of requests.
    static let namingOptionsMax = 64

    /// Reads every Connection field and marks the fields that they name. Nil when there are too many options.
    static func connectionOptions(_ bytes: Span<UInt8>, _ table: FieldTable) -> ConnectionOptions? {
        var options = ConnectionOptions()
        var namingOptions = 0
        guard table.contains(.connection) else { return options }
        for position in table.lines.indices where table.lines[position].known == .connection {
            // By far the most frequent value, without taking a list apart.
            let value = bytes.extracting(table.lines[position].value)
            if value.matchesIgnoringCase("keep-alive") {
                options.isKeepAlive = true
                continue
            }
            var members = ListMembers(table.lines[position].value)
            while let member = members.next(in: bytes) {
                let option = bytes.extracting(member)
                if option.matchesIgnoringCase("close") {
                    options.isClose = true
                } else if option.matchesIgnoringCase("keep-alive") {
                    options.isKeepAlive = true
                } else if option.matchesIgnoringCase("upgrade") {
                    options.isUpgrade = true
                } else {
                    namingOptions += 1
                    guard namingOptions <= namingOptionsMax else { return nil }
                    table.markNamedByConnection(option, in: bytes)
                }
            }
        }
        return options
    }
}
