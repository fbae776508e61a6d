import ShmRing

/// One line a request, gathered and written once a turn of the loop.
///
/// A log that cannot be written never holds a request up: lines that a full pipe does not take are dropped,
/// whole. Lines leave in pieces that the kernel writes in one go (PIPE_BUF), so that those of several
/// workers do not mix.
final class AccessLogWriter {
    private let sink: LogSink
    private let isJSON: Bool
    /// The front of the buffer is the rest of a line of which some has been written.
    private var isMidLine = false
    private static let pieceBytesMax = 4096
    private let buffer = ByteBuffer(capacity: 256 * 1024)
    /// Longest target that is written, in bytes of the request.
    private static let targetBytesMax = 4096
    /// Room that one line takes at most: escaping makes up to six bytes of one.
    private static let lineBytesMax = 6 * targetBytesMax + 2048

    init(_ configuration: WorkerConfiguration.AccessLog) {
        sink = LogSink(configuration.descriptor)
        isJSON = configuration.isJSON
    }

    func flush() {
        while !buffer.isEmpty {
            let piece = pieceBytes()
            guard case .bytes(let count) = sink.write(buffer, countMax: piece), count > 0 else { return dropLines() }
            isMidLine = count < piece
        }
    }

    /// Whole lines up to the piece size, or one longer line.
    private func pieceBytes() -> Int {
        let buffer = self.buffer
        let bytes = buffer.readable
        var end = 0
        for index in bytes.indices where bytes[index] == UInt8(ascii: "\n") {
            if index >= Self.pieceBytesMax, end > 0 { break }
            end = index + 1
            if isMidLine { break }
        }
        return end
    }

    /// Forgets the waiting lines, but not the rest of one that has been begun.
    private func dropLines() {
        guard isMidLine else { return buffer.reset() }
        buffer.truncate(to: pieceBytes())
    }

    func record(_ exchange: Exchange, _ client: DownstreamConnection, _ endpoints: [Endpoint]) {
        if buffer.writableBytes < Self.lineBytesMax {
            flush()
            buffer.compact()
        }
        var line = LogLine(buffer, isJSON: isJSON)
        line.time("time", unixNs: exchange.startedUnixNs)
        if exchange.identity.rootSpanID != 0 {
            line.hex("trace_id", exchange.identity.traceIDHigh, exchange.identity.traceIDLow)
            line.hex("span_id", exchange.identity.rootSpanID)
        }
        line.peer("client", client.peer)
        if let retained = exchange.retained {
            line.text("method", retained.readable.extracting(exchange.head.methodText))
            let target = exchange.head.target
            line.text("target", retained.readable.extracting(target.prefix(Self.targetBytesMax)))
        }
        line.number("status", exchange.statusSent)
        line.number("bytes", exchange.responseBodyBytes)
        line.number("duration_us", Int((exchange.endedNs &- exchange.startedNs) / 1000))
        if exchange.attempt.endpoint >= 0 { line.text("backend", endpoints[exchange.attempt.endpoint].name.utf8.span) }
        if let error = exchange.error { line.text("error", error.text) }
        line.end()
    }
}

/// Writes the fields of one line as logfmt or JSON, escaping what could forge a field or a line.
struct LogLine {
    private let buffer: ByteBuffer
    private let isJSON: Bool
    private var isFirst = true

    init(_ buffer: ByteBuffer, isJSON: Bool) {
        self.buffer = buffer
        self.isJSON = isJSON
        if isJSON { buffer.append("{") }
    }

    mutating func number(_ key: StaticString, _ value: Int) {
        begin(key)
        buffer.append(decimal: value)
    }

    mutating func text(_ key: StaticString, _ value: StaticString) {
        begin(key)
        if isJSON { buffer.append("\"") }
        buffer.append(value)
        if isJSON { buffer.append("\"") }
    }

    /// A text from outside.
    mutating func text(_ key: StaticString, _ value: Span<UInt8>) {
        begin(key)
        let quotes = isJSON || Self.needsQuotes(value)
        if quotes { buffer.append("\"") }
        for index in value.indices { escape(value[index]) }
        if quotes { buffer.append("\"") }
    }

    mutating func hex(_ key: StaticString, _ value: UInt64...) {
        begin(key)
        if isJSON { buffer.append("\"") }
        for part in value { buffer.append(hex: part, digits: 16) }
        if isJSON { buffer.append("\"") }
    }

    mutating func peer(_ key: StaticString, _ peer: PeerName) {
        begin(key)
        if isJSON { buffer.append("\"") }
        let isIPv6 = peer.isIPv6
        if isIPv6 { buffer.append("[") }
        buffer.append(peer.ip)
        if isIPv6 { buffer.append("]") }
        buffer.append(":")
        buffer.append(decimal: Int(peer.port))
        if isJSON { buffer.append("\"") }
    }

    /// RFC 3339 in UTC with microseconds.
    mutating func time(_ key: StaticString, unixNs: UInt64) {
        begin(key)
        if isJSON { buffer.append("\"") }
        let date = CivilTime(unixNs: unixNs)
        pad(date.year, 4)
        buffer.append("-")
        pad(date.month, 2)
        buffer.append("-")
        pad(date.day, 2)
        buffer.append("T")
        pad(date.hour, 2)
        buffer.append(":")
        pad(date.minute, 2)
        buffer.append(":")
        pad(date.second, 2)
        buffer.append(".")
        pad(date.microsecond, 6)
        buffer.append("Z")
        if isJSON { buffer.append("\"") }
    }

    func end() {
        buffer.append(isJSON ? "}\n" : "\n")
    }

    private func pad(_ value: Int, _ digits: Int) {
        var divisor = 1
        for _ in 1..<digits { divisor *= 10 }
        while divisor > 0 {
            buffer.append(UInt8(ascii: "0") + UInt8(value / divisor % 10))
            divisor /= 10
        }
    }

    private mutating func begin(_ key: StaticString) {
        if !isFirst { buffer.append(isJSON ? "," : " ") }
        isFirst = false
        if isJSON { buffer.append("\"") }
        buffer.append(key)
        buffer.append(isJSON ? "\":" : "=")
    }

    private static func needsQuotes(_ value: Span<UInt8>) -> Bool {
        for index in value.indices {
            let byte = value[index]
            if byte <= 0x20 || byte >= 0x7F || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "=")
                || byte == UInt8(ascii: "\\")
            {
                return true
            }
        }
        return value.isEmpty
    }

    private func escape(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            buffer.append("\\")
            buffer.append(byte)
        case 0x20..<0x7F:
            buffer.append(byte)
        default:
            buffer.append("\\u00")
            buffer.append(hex: UInt64(byte), digits: 2)
        }
    }
}

/// A date and time of day in UTC, in the proleptic Gregorian calendar.
struct CivilTime: Equatable {
    var year: Int
    var month: Int
    var day: Int
    var hour: Int
    var minute: Int
    var second: Int
    var microsecond: Int

    /// Days to date by counting 400-year eras from 1 March of year 0 (Howard Hinnant, "chrono-Compatible
    /// Low-Level Date Algorithms").
    init(unixNs: UInt64) {
        let seconds = Int(unixNs / 1_000_000_000)
        microsecond = Int(unixNs % 1_000_000_000) / 1000
        let secondOfDay = seconds % 86400
        hour = secondOfDay / 3600
        minute = secondOfDay / 60 % 60
        second = secondOfDay % 60
        let days = seconds / 86400 + 719_468
        let era = days / 146_097
        let dayOfEra = days % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * shifted + 2) / 5 + 1
        month = shifted < 10 ? shifted + 3 : shifted - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }
}
