/// Takes the chunked transfer coding apart (RFC 9112 §7.1), strictly: CRLF and nothing else ends a line,
/// sizes are 1 to 15 hexadecimal digits, extensions are dropped, trailers are kept for the caller.
///
///     size ──► extension ──► sizeLF ──► data ──► dataCR ──► dataLF ──► size …
///                               └─ size 0 ──► trailers ──► finished
///                                                 └─ none ──► lastLF ──► finished
struct ChunkedDecoder: Equatable, Sendable {
    enum Event: Equatable {
        /// Body bytes, as a range of the input.
        case data(Range<Int>)
        /// The input is used up.
        case needsMore
        /// The message is over; `trailers` holds its trailer section.
        case finished
        case malformed
    }

    /// Extensions of one chunk, and all trailers together, may take this much.
    static let extensionBytesMax = 4 * 1024
    static let trailerBytesMax = 16 * 1024

    private enum State: Equatable, Sendable {
        case size(digits: Int)
        case extensions(bytes: Int)
        case sizeLF
        case data
        case dataCR
        case dataLF
        case trailers
        case lastLF
        case finished
        case malformed
    }

    private var state = State.size(digits: 0)
    private var remaining = 0
    /// The trailer section with the empty line that ends it, once `finished`; empty without trailers.
    private(set) var trailers: [UInt8] = []

    /// Whether the last chunk and the trailers have been seen.
    var isFinished: Bool { state == .finished }

    /// Goes on at `index`.
    /// - Parameter index: Moved behind what was used.
    mutating func next(_ bytes: Span<UInt8>, _ index: inout Int) -> Event {
        while true {
            if state == .finished { return .finished }
            if state == .malformed { return .malformed }
            guard index < bytes.count else { return .needsMore }
            if state == .data { return takeData(bytes, &index) }
            if state == .trailers {
                takeTrailerByte(bytes[index])
            } else {
                step(bytes[index])
            }
            index += 1
        }
    }

    private mutating func takeData(_ bytes: Span<UInt8>, _ index: inout Int) -> Event {
        let count = min(remaining, bytes.count - index)
        let range = index..<(index + count)
        remaining -= count
        index += count
        if remaining == 0 { state = .dataCR }
        return .data(range)
    }

    private mutating func step(_ byte: UInt8) {
        switch state {
        case .size(let digits): takeSizeByte(byte, digits: digits)
        case .extensions(let count): takeExtensionByte(byte, count: count)
        case .sizeLF: state = byte != 0x0A ? .malformed : remaining == 0 ? .trailers : .data
        case .dataCR: state = byte == 0x0D ? .dataLF : .malformed
        case .dataLF: state = byte == 0x0A ? .size(digits: 0) : .malformed
        case .lastLF: state = byte == 0x0A ? .finished : .malformed
        case .data, .trailers, .finished, .malformed: preconditionFailure("no byte belongs to \(state)")
        }
    }

    private mutating func takeSizeByte(_ byte: UInt8, digits: Int) {
        if let digit = Self.hexValue(byte) {
            guard digits < 15 else { return state = .malformed }
            remaining = digits == 0 ? digit : remaining << 4 | digit
            state = .size(digits: digits + 1)
        } else if digits > 0, byte == 0x0D {
            state = .sizeLF
        } else if digits > 0, byte == UInt8(ascii: ";") {
            state = .extensions(bytes: 0)
        } else {
            state = .malformed
        }
    }

    private mutating func takeExtensionByte(_ byte: UInt8, count: Int) {
        if byte == 0x0D {
            state = .sizeLF
        } else if count >= Self.extensionBytesMax || byte == 0x7F || (byte < 0x20 && byte != 0x09) {
            state = .malformed
        } else {
            state = .extensions(bytes: count + 1)
        }
    }

    /// Collects the trailer section until its empty line; its lines are judged as a whole.
    /// Without trailers, as nearly always, nothing is collected and nothing allocated.
    private mutating func takeTrailerByte(_ byte: UInt8) {
        if byte == 0x0D, trailers.isEmpty { return state = .lastLF }
        trailers.append(byte)
        let count = trailers.count
        if byte == 0x0A {
            guard count >= 2, trailers[count - 2] == 0x0D else { return state = .malformed }
            if count >= 4, trailers[count - 3] == 0x0A {
                state = Trailers.isWellFormed(trailers) ? .finished : .malformed
            }
        } else if count >= 2, trailers[count - 2] == 0x0D {
            state = .malformed
        }
        if count > Self.trailerBytesMax { state = .malformed }
    }

    private static func hexValue(_ byte: UInt8) -> Int? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): Int(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): Int(byte - UInt8(ascii: "a")) + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): Int(byte - UInt8(ascii: "A")) + 10
        default: nil
        }
    }
}
