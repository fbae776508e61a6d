/// Collects a trailer section as HTTP/1.1 lines, without the empty line that ends it (RFC 9113 §8.1).
struct TrailerBlock {
    private(set) var lines: [UInt8] = []
    private(set) var isMalformed = false

    mutating func reset() {
        lines = []
        isMalformed = false
    }

    mutating func field(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        guard RequestBlock.isLowerCaseToken(name), !RequestBlock.belongsToConnection(name),
            value.endOfFieldText(from: 0) == value.count,
            lines.count + name.count + value.count + 4 <= ChunkedDecoder.trailerBytesMax
        else { return isMalformed = true }
        for index in name.indices { lines.append(name[index]) }
        lines.append(UInt8(ascii: ":"))
        lines.append(UInt8(ascii: " "))
        for index in value.indices { lines.append(value[index]) }
        lines.append(0x0D)
        lines.append(0x0A)
    }
}
