/// Fields that the proxy itself reads, replaces or removes. Everything else is carried as it came.
enum KnownField: UInt8, Sendable {
    case other
    case host, connection, keepAlive, proxyConnection, contentLength, transferEncoding, te, trailer, upgrade
    case expect, userAgent, http2Settings
    case traceparent, tracestate
    case forwardedFor, forwardedProto, forwardedHost
    case clientCertificate

    /// Field names match in either case (RFC 9110 §5.1).
    static func named(_ name: Span<UInt8>) -> KnownField {
        switch name.count {
        case 2: name.matchesIgnoringCase("te") ? .te : .other
        case 4: name.matchesIgnoringCase("host") ? .host : .other
        case 6: name.matchesIgnoringCase("expect") ? .expect : .other
        case 7: sevenLetters(name)
        case 10: tenLetters(name)
        case 11: name.matchesIgnoringCase("traceparent") ? .traceparent : .other
        case 14: fourteenLetters(name)
        case 15: name.matchesIgnoringCase("x-forwarded-for") ? .forwardedFor : .other
        case 16: sixteenLetters(name)
        case 17: seventeenLetters(name)
        case 19: isClientCertificate(name, "x-ssl-client-verify") ? .clientCertificate : .other
        case 24: isClientCertificate(name, "x-ssl-client-fingerprint") ? .clientCertificate : .other
        default: .other
        }
    }

    private static func sevenLetters(_ name: Span<UInt8>) -> KnownField {
        if name.matchesIgnoringCase("upgrade") { return .upgrade }
        return name.matchesIgnoringCase("trailer") ? .trailer : .other
    }

    private static func tenLetters(_ name: Span<UInt8>) -> KnownField {
        if name.matchesIgnoringCase("connection") { return .connection }
        if name.matchesIgnoringCase("keep-alive") { return .keepAlive }
        if name.matchesIgnoringCase("user-agent") { return .userAgent }
        return name.matchesIgnoringCase("tracestate") ? .tracestate : .other
    }

    private static func fourteenLetters(_ name: Span<UInt8>) -> KnownField {
        if name.matchesIgnoringCase("content-length") { return .contentLength }
        return name.matchesIgnoringCase("http2-settings") ? .http2Settings : .other
    }

    private static func sixteenLetters(_ name: Span<UInt8>) -> KnownField {
        if name.matchesIgnoringCase("x-forwarded-host") { return .forwardedHost }
        return name.matchesIgnoringCase("proxy-connection") ? .proxyConnection : .other
    }

    private static func seventeenLetters(_ name: Span<UInt8>) -> KnownField {
        if name.matchesIgnoringCase("transfer-encoding") { return .transferEncoding }
        if isClientCertificate(name, "x-ssl-client-s-dn") { return .clientCertificate }
        return name.matchesIgnoringCase("x-forwarded-proto") ? .forwardedProto : .other
    }

    /// Backends that hand fields on as CGI variables (RFC 3875 §4.1.18) cannot tell `_` from `-`, so that neither may
    /// come from a client.
    private static func isClientCertificate(_ name: Span<UInt8>, _ wanted: StaticString) -> Bool {
        guard name[0] | 0x20 == UInt8(ascii: "x"), name.count == wanted.utf8CodeUnitCount else { return false }
        for index in 1..<name.count {
            let byte = name[index] == UInt8(ascii: "_") ? UInt8(ascii: "-") : name[index] | 0x20
            guard byte == wanted.byte(at: index) else { return false }
        }
        return true
    }
}

/// Where one field line stands in the message's bytes.
struct FieldLine: Sendable {
    /// First byte of the name.
    var start: UInt32
    /// One past the line's CRLF.
    var end: UInt32
    /// The value without the white space around it.
    var valueStart: UInt32
    var valueEnd: UInt32
    var nameCount: UInt16
    var known: KnownField
    /// Named by a Connection field, so it ends here (RFC 9110 §7.6.1).
    var isNamedByConnection = false

    var name: Range<Int> { Int(start)..<(Int(start) + Int(nameCount)) }
    var value: Range<Int> { Int(valueStart)..<Int(valueEnd) }
    var line: Range<Int> { Int(start)..<Int(end) }
}

/// The field section of one message: offsets into its bytes, in order. Reused from message to message,
/// so that parsing allocates nothing.
///
/// Unsafe inside, safe to use: lines stand in memory of the table's own, and every number is checked against
/// the count.
@safe
final class FieldTable {
    /// The field lines, in order. A view: it changes with the table.
    struct Lines: RandomAccessCollection {
        fileprivate let table: FieldTable

        var startIndex: Int { 0 }
        var endIndex: Int { table.count }

        @inline(__always)
        subscript(position: Int) -> FieldLine { table[position] }
    }

    private var storage: UnsafeMutablePointer<FieldLine>
    private var capacity: Int
    private(set) var count = 0
    private var seen: UInt32 = 0

    init(capacity: Int = 128) {
        self.capacity = max(1, capacity)
        unsafe storage = .allocate(capacity: self.capacity)
    }

    deinit {
        unsafe storage.deallocate()
    }

    var lines: Lines { Lines(table: self) }

    @inline(__always)
    subscript(position: Int) -> FieldLine {
        precondition(position >= 0 && position < count, "line \(position) of \(count)")
        return unsafe storage[position]
    }

    func reset() {
        count = 0
        seen = 0
    }

    @inline(__always)
    func append(_ line: FieldLine) {
        if count == capacity { grow() }
        unsafe storage[count] = line
        count += 1
        seen |= 1 << UInt32(line.known.rawValue)
    }

    /// True when at least one field of this kind is there; cheap enough to ask before every search.
    func contains(_ field: KnownField) -> Bool {
        seen & (1 << UInt32(field.rawValue)) != 0
    }

    /// The first field of a kind.
    func first(_ field: KnownField) -> FieldLine? {
        guard contains(field) else { return nil }
        for index in 0..<count where self[index].known == field { return self[index] }
        return nil
    }

    func count(of field: KnownField) -> Int {
        guard contains(field) else { return 0 }
        var found = 0
        for index in 0..<count where self[index].known == field { found += 1 }
        return found
    }

    /// Marks every field whose name a Connection option gives. Host and Content-Length stay: no sender
    /// may make the next reader see another message than this one does.
    func markNamedByConnection(_ option: Span<UInt8>, in bytes: Span<UInt8>) {
        for index in 0..<count {
            let line = self[index]
            guard line.known != .host, line.known != .contentLength else { continue }
            if bytes.extracting(line.name).matchesIgnoringCase(option) {
                unsafe storage[index].isNamedByConnection = true
            }
        }
    }

    @inline(never)
    private func grow() {
        let larger = UnsafeMutablePointer<FieldLine>.allocate(capacity: capacity * 2)
        unsafe larger.update(from: storage, count: count)
        unsafe storage.deallocate()
        unsafe storage = larger
        capacity *= 2
    }
}
