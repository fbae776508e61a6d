// Any bytes as a chunked body. Checked: pieces give the same as the whole, and the same as a second decoder
// that is written without a state machine.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let input = unsafe FuzzInput(start, count)
    let whole = Decoded(input.bytes, cuts: [input.bytes.count])
    require(whole == Decoded(input.bytes, cuts: input.prefixCounts + [input.bytes.count]), "pieces give the same")
    require(whole == Decoded(input.bytes, cuts: Array(0...input.bytes.count)), "byte by byte gives the same")
    require(whole.bytesUsed <= input.bytes.count, "nothing is used that is not there")
    var decoder = PlainDecoder(input.bytes)
    let plain = decoder.decode()
    require((whole.end == .finished) == (plain != nil), "both decoders see the same end")
    if let plain {
        require(whole.data == plain.data, "both decoders see the same data")
        require(whole.trailers == plain.trailers, "both decoders see the same trailers")
        require(whole.bytesUsed == plain.bytesUsed, "both decoders stop at the same byte")
    }
    return 0
}

/// What `ChunkedDecoder` made of bytes that came in pieces.
private struct Decoded: Equatable {
    enum End { case finished, malformed, incomplete }

    var data: [UInt8] = []
    var trailers: [UInt8] = []
    var bytesUsed = 0
    var end = End.incomplete

    init(_ bytes: [UInt8], cuts: [Int]) {
        var decoder = ChunkedDecoder()
        for (low, high) in zip([0] + cuts, cuts) where end == .incomplete {
            take(Array(bytes[low..<high]), &decoder)
        }
        if end == .finished { trailers = decoder.trailers }
        require(decoder.isFinished == (end == .finished), "the decoder knows its end")
    }

    private mutating func take(_ piece: [UInt8], _ decoder: inout ChunkedDecoder) {
        var index = 0
        defer { bytesUsed += index }
        while true {
            switch decoder.next(piece.span, &index) {
            case .data(let range):
                require(!range.isEmpty && range.upperBound == index, "data is what was passed over")
                data += piece[range]
            case .needsMore:
                require(index == piece.count, "a piece is used up")
                return
            case .finished: return end = .finished
            case .malformed: return end = .malformed
            }
        }
    }
}

/// Takes a whole body apart line by line; nil for a body that is wrong or does not end.
private struct PlainDecoder {
    private let bytes: [UInt8]
    private var at = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func decode() -> (data: [UInt8], trailers: [UInt8], bytesUsed: Int)? {
        var data: [UInt8] = []
        while true {
            guard let size = sizeLine() else { return nil }
            if size == 0 { break }
            guard size <= bytes.count - at - 2 else { return nil }
            data += bytes[at..<(at + size)]
            at += size
            guard line() == [] else { return nil }
        }
        let start = at
        var lines = 0
        while true {
            guard let trailer = line() else { return nil }
            if trailer.isEmpty { break }
            guard Self.isFieldLine(trailer) else { return nil }
            lines += 1
        }
        guard lines <= 64, lines == 0 || at - start <= ChunkedDecoder.trailerBytesMax else { return nil }
        return (data, lines == 0 ? [] : Array(bytes[start..<at]), at)
    }

    private static func isFieldLine(_ line: [UInt8]) -> Bool {
        guard let colon = line.firstIndex(of: 0x3A), colon > 0 else { return false }
        return line[..<colon].allSatisfy { $0 > 0x20 && $0 < 0x7F && !"\"(),/:;<=>?@[\\]{}".utf8.contains($0) }
            && line[(colon + 1)...].allSatisfy { $0 == 0x09 || ($0 >= 0x20 && $0 != 0x7F) }
    }

    private mutating func sizeLine() -> Int? {
        guard let line = line() else { return nil }
        let size = line.prefix { $0 != 0x3B }
        let rest = line.dropFirst(size.count)
        guard (1...15).contains(size.count), size.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit && $0 < 0x80 }),
            rest.count <= ChunkedDecoder.extensionBytesMax + 1,
            rest.allSatisfy({ $0 == 0x09 || ($0 >= 0x20 && $0 != 0x7F) })
        else { return nil }
        return Int(String(decoding: size, as: UTF8.self), radix: 16)
    }

    /// The next line without its CRLF; nil where there is none, or one that another reader would end earlier.
    private mutating func line() -> [UInt8]? {
        guard let end = bytes[at...].firstIndex(where: { $0 == 0x0D || $0 == 0x0A }), bytes[end] == 0x0D,
            end + 1 < bytes.count, bytes[end + 1] == 0x0A
        else { return nil }
        defer { at = end + 2 }
        return Array(bytes[at..<end])
    }
}
