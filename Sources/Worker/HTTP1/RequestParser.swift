/// What was understood of a request's head. Ranges are offsets into the head's bytes.
struct RequestHead: Equatable {
    enum TargetForm: Equatable {
        case origin
        case absolute
        case asterisk
    }

    var method: Method = .other
    var methodText: Range<Int> = 0..<0
    var target: Range<Int> = 0..<0
    var targetForm: TargetForm = .origin
    /// Host and port as the client asked for them: from the target in absolute form, else from Host.
    var authority: Range<Int> = 0..<0
    /// What goes upstream as request target; empty for an absolute form without a path.
    var path: Range<Int> = 0..<0
    /// HTTP/1.`minorVersion`.
    var minorVersion = 1
    var framing: BodyFraming = .none
    var connection = FramingFields.ConnectionOptions()
    var expectsContinue = false
    /// Asks for another protocol than cleartext HTTP/2, which is never passed on.
    var wantsUpgrade = false
    var acceptsTrailers = false
    /// First byte of the field section.
    var fieldsStart = 0
    /// Bytes up to and with the empty line.
    var headBytes = 0

    /// Whether the client's connection may serve another request (RFC 9112 §9.3).
    var isPersistent: Bool {
        minorVersion >= 1 ? !connection.isClose : connection.isKeepAlive && !connection.isClose
    }
}

/// Why a request is refused.
enum RequestRefusal: Equatable {
    case malformed
    case ambiguousFraming
    case targetTooLong
    case headTooLarge
    case tooManyFields
    case unknownTransferCoding
    case unsupportedVersion
    case methodNotAllowed
}

/// Parses one request head (RFC 9112 §3 to §6), strictly: what could be read two ways is refused.
///
/// A pure function of the bytes: called again with more bytes when it said `incomplete`. Every other
/// verdict is final: more bytes behind cannot change it, so it does not depend on how they arrived.
struct RequestParser {
    struct Limits {
        var headBytesMax = 32 * 1024
        var targetBytesMax = 8 * 1024
        var fieldsMax = 128
    }

    enum Outcome: Equatable {
        case complete(RequestHead)
        case incomplete
        case refused(RequestRefusal)
    }

    /// No registered method is half as long.
    static let methodBytesMax = 64

    var limits = Limits()

    /// - Parameters:
    ///   - bytes: From the request's first byte (`leadingEmptyLines` skipped).
    ///   - table: Reset and filled with the field lines.
    func parse(_ bytes: Span<UInt8>, into table: FieldTable) -> Outcome {
        table.reset()
        let bytes = bytes.extracting(first: limits.headBytesMax)
        var head = RequestHead()
        switch parseRequestLine(bytes, into: &head) {
        case .done: break
        case .incomplete: return bytes.count == limits.headBytesMax ? .refused(.headTooLarge) : .incomplete
        case .refused(let reason): return .refused(reason)
        }
        switch FieldSection.parse(bytes, from: head.fieldsStart, into: table, fieldsMax: limits.fieldsMax) {
        case .complete(let end): head.headBytes = end
        case .incomplete: return bytes.count == limits.headBytesMax ? .refused(.headTooLarge) : .incomplete
        case .malformed: return .refused(.malformed)
        case .tooManyFields: return .refused(.tooManyFields)
        }
        if let refusal = interpret(bytes, table, &head) { return .refused(refusal) }
        return .complete(head)
    }

    /// Empty lines before a request line, which a server should pass over (RFC 9112 §2.2).
    static func leadingEmptyLines(_ bytes: Span<UInt8>) -> Int {
        var index = 0
        while index + 1 < bytes.count, bytes[index] == 0x0D, bytes[index + 1] == 0x0A { index += 2 }
        return index
    }

    private enum LineOutcome {
        case done
        case incomplete
        case refused(RequestRefusal)
    }

    private func parseRequestLine(_ bytes: Span<UInt8>, into head: inout RequestHead) -> LineOutcome {
        var index = 0
        while index < bytes.count, isTokenByte(bytes[index]) { index += 1 }
        guard index <= Self.methodBytesMax else { return .refused(.malformed) }
        guard index < bytes.count else { return .incomplete }
        guard index > 0, bytes[index] == 0x20 else { return .refused(.malformed) }
        head.methodText = 0..<index
        let targetStart = index + 1
        index = targetStart
        while index < bytes.count, isTargetByte(bytes[index]) { index += 1 }
        if index - targetStart > limits.targetBytesMax { return .refused(.targetTooLong) }
        guard index < bytes.count else { return .incomplete }
        guard index > targetStart, bytes[index] == 0x20 else { return .refused(.malformed) }
        head.target = targetStart..<index
        return parseVersion(bytes, at: index + 1, into: &head)
    }

    /// `HTTP/1.x` CRLF. A minor version above 1 is spoken to as 1.1 (RFC 9110 §6.2).
    private func parseVersion(_ bytes: Span<UInt8>, at start: Int, into head: inout RequestHead) -> LineOutcome {
        if bytes.hasWord("HTTP/1.1", at: start), bytes.count - start >= 10, bytes[start + 8] == 0x0D,
            bytes[start + 9] == 0x0A
        {
            head.fieldsStart = start + 10
            return .done
        }
        let available = min(bytes.count - start, 10)
        for offset in 0..<available {
            let byte = bytes[start + offset]
            let isRight =
                switch offset {
                case 0...4: byte == ("HTTP/" as StaticString).byte(at: offset)
                case 5, 7: isDigit(byte)
                case 6: byte == UInt8(ascii: ".")
                case 8: byte == 0x0D
                default: byte == 0x0A
                }
            guard isRight else { return .refused(.malformed) }
        }
        guard available == 10 else { return .incomplete }
        guard bytes[start + 5] == UInt8(ascii: "1") else { return .refused(.unsupportedVersion) }
        head.minorVersion = bytes[start + 7] == UInt8(ascii: "0") ? 0 : 1
        head.fieldsStart = start + 10
        return .done
    }

    /// Everything that needs the whole head. Nil when nothing speaks against the request.
    private func interpret(
        _ bytes: Span<UInt8>, _ table: FieldTable, _ head: inout RequestHead
    ) -> RequestRefusal? {
        head.method = Method.named(bytes.extracting(head.methodText))
        if head.method == .connect { return .methodNotAllowed }
        guard interpretHost(bytes, table, &head), interpretTarget(bytes, &head) else { return .malformed }
        switch FramingFields.verdict(bytes, table) {
        case .none: head.framing = .none
        case .length(let count): head.framing = count == 0 ? .none : .length(count)
        case .chunked:
            guard head.minorVersion >= 1 else { return .ambiguousFraming }
            head.framing = .chunked
        case .ambiguous: return .ambiguousFraming
        case .unknownCoding: return .unknownTransferCoding
        }
        guard let connection = FramingFields.connectionOptions(bytes, table) else { return .malformed }
        head.connection = connection
        interpretExpectations(bytes, table, &head)
        return nil
    }

    /// One Host field at most, required of HTTP/1.1, of a form that cannot hide a second meaning
    /// (RFC 9112 §3.2).
    private func interpretHost(_ bytes: Span<UInt8>, _ table: FieldTable, _ head: inout RequestHead) -> Bool {
        guard let host = table.first(.host) else { return head.minorVersion == 0 }
        guard table.count(of: .host) == 1, Self.isAuthority(bytes, host.value) else { return false }
        head.authority = host.value
        return true
    }

    private func interpretTarget(_ bytes: Span<UInt8>, _ head: inout RequestHead) -> Bool {
        let first = bytes[head.target.lowerBound]
        if first == UInt8(ascii: "/") {
            head.path = head.target
            return true
        }
        if first == UInt8(ascii: "*") {
            head.targetForm = .asterisk
            head.path = head.target
            return head.target.count == 1 && head.method == .options
        }
        return interpretAbsoluteTarget(bytes, &head)
    }

    /// `http://authority/path`: the authority counts, not the Host field (RFC 9112 §3.2.2).
    private func interpretAbsoluteTarget(_ bytes: Span<UInt8>, _ head: inout RequestHead) -> Bool {
        let target = head.target
        let schemeBytes =
            if target.count > 7, bytes.extracting(first: 7, of: target).matchesIgnoringCase("http://") {
                7
            } else if target.count > 8, bytes.extracting(first: 8, of: target).matchesIgnoringCase("https://") {
                8
            } else { 0 }
        guard schemeBytes > 0 else { return false }
        let start = target.lowerBound + schemeBytes
        var end = start
        while end < target.upperBound, !Self.endsAuthority(bytes[end]) { end += 1 }
        guard end > start, Self.isAuthority(bytes, start..<end) else { return false }
        head.targetForm = .absolute
        head.authority = start..<end
        head.path = end..<target.upperBound
        return true
    }

    private static func endsAuthority(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: "/") || byte == UInt8(ascii: "?")
    }

    /// uri-host [":" port] (RFC 3986 §3.2.2, §3.2.3): no user information, no list, no white space. Empty
    /// is what Host says of a target without an authority (RFC 9112 §3.2).
    private static func isAuthority(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
        guard !range.isEmpty else { return true }
        guard var index = endOfHost(bytes, range) else { return false }
        guard index < range.upperBound else { return true }
        guard bytes[index] == UInt8(ascii: ":") else { return false }
        index += 1
        while index < range.upperBound, isDigit(bytes[index]) { index += 1 }
        return index == range.upperBound
    }

    /// One past a host that is not empty: a name, an IPv4 address, or a literal in brackets.
    private static func endOfHost(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Int? {
        var index = range.lowerBound
        let isLiteral = bytes[index] == UInt8(ascii: "[")
        if isLiteral { index += 1 }
        let start = index
        while index < range.upperBound,
            isRegNameByte(bytes[index]) || (isLiteral && bytes[index] == UInt8(ascii: ":"))
        {
            index += 1
        }
        guard index > start else { return nil }
        guard isLiteral else { return index }
        guard index < range.upperBound, bytes[index] == UInt8(ascii: "]") else { return nil }
        return index + 1
    }

    private func interpretExpectations(_ bytes: Span<UInt8>, _ table: FieldTable, _ head: inout RequestHead) {
        if let expect = table.first(.expect), head.minorVersion >= 1 {
            head.expectsContinue = bytes.extracting(expect.value).matchesIgnoringCase("100-continue")
        }
        if head.connection.isUpgrade, let upgrade = table.first(.upgrade), head.minorVersion >= 1 {
            head.wantsUpgrade =
                head.framing == .none && table.count(of: .upgrade) == 1
                && !Self.offersCleartextHTTP2(bytes, upgrade.value)
        }
        if let te = table.first(.te) {
            var members = ListMembers(te.value)
            while let member = members.next(in: bytes) {
                if bytes.extracting(member).matchesIgnoringCase("trailers") { head.acceptsTrailers = true }
            }
        }
    }
}

extension RequestParser {
    /// Whether h2c, with or without a version, is among the protocols (RFC 9110 §7.8): a backend that took it
    /// would carry requests through the tunnel that nobody here sees.
    private static func offersCleartextHTTP2(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Bool {
        var members = ListMembers(value)
        while let member = members.next(in: bytes) {
            var nameEnd = member.lowerBound
            while nameEnd < member.upperBound, isTokenByte(bytes[nameEnd]) { nameEnd += 1 }
            if bytes.extracting(member.lowerBound..<nameEnd).matchesIgnoringCase("h2c") { return true }
        }
        return false
    }
}

extension Span<UInt8> {
    /// The first `count` bytes of `range`.
    @_lifetime(copy self)
    func extracting(first count: Int, of range: Range<Int>) -> Span<UInt8> {
        extracting(range.lowerBound..<(range.lowerBound + count))
    }
}
