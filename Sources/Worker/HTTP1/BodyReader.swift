/// Follows one message body through its framing and says which bytes are body (RFC 9112 §6, §7).
struct BodyReader: Equatable, Sendable {
    enum Event: Equatable {
        /// Body bytes, as a range of the input.
        case data(Range<Int>)
        case needsMore
        case finished
        case malformed
    }

    let framing: BodyFraming
    private var remaining: Int
    private var decoder: ChunkedDecoder

    init(_ framing: BodyFraming) {
        self.framing = framing
        remaining = if case .length(let count) = framing { count } else { 0 }
        decoder = ChunkedDecoder()
    }

    var isFinished: Bool {
        switch framing {
        case .none: true
        case .length: remaining == 0
        case .chunked: decoder.isFinished
        case .untilClose: false
        }
    }

    /// The trailer section, once a chunked body is finished.
    var trailers: [UInt8] { decoder.trailers }

    /// How many of the next bytes are body as they stand, without any framing between them; nil for a
    /// chunked body, which must go through `next`.
    var rawBytesMax: Int? {
        switch framing {
        case .none: 0
        case .length: remaining
        case .chunked: nil
        case .untilClose: .max
        }
    }

    /// Accounts for raw bytes that went on unread.
    mutating func rawBytesPassed(_ count: Int) {
        guard case .length = framing else { return }
        precondition(count <= remaining, "\(count) bytes of a body that has \(remaining) left")
        remaining -= count
    }

    /// Goes on at `index`, which is moved behind what was used.
    mutating func next(_ bytes: Span<UInt8>, _ index: inout Int) -> Event {
        if let most = rawBytesMax {
            guard most > 0 else { return .finished }
            let count = min(most, bytes.count - index)
            guard count > 0 else { return .needsMore }
            rawBytesPassed(count)
            index += count
            return .data((index - count)..<index)
        }
        return switch decoder.next(bytes, &index) {
        case .data(let range): .data(range)
        case .needsMore: .needsMore
        case .finished: .finished
        case .malformed: .malformed
        }
    }
}
