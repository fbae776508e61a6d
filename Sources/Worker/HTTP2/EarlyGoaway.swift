/// GOAWAY as the first frame of a server (RFC 9113 §3.4 wants SETTINGS there). libnghttp2 takes it for a broken
/// connection and tells nobody what it said, so it is read here.
extension HTTP2Session.Goaway {
    private static let frameHeadBytes = 9
    private static let fixedBytes = 8
    private static let goawayType: UInt8 = 7

    /// Nil when what came first is not a whole GOAWAY frame.
    init?(first bytes: Span<UInt8>) {
        guard bytes.count >= Self.frameHeadBytes + Self.fixedBytes, bytes[3] == Self.goawayType else { return nil }
        let length = Int(bytes[0]) << 16 | Int(bytes[1]) << 8 | Int(bytes[2])
        guard length >= Self.fixedBytes, bytes.count >= Self.frameHeadBytes + length else { return nil }
        lastStreamID = Int32(bitPattern: Self.number(bytes, at: 9) & 0x7FFF_FFFF)
        errorCode = Self.number(bytes, at: 13)
        debugData = []
        for index in 17..<min(9 + length, 17 + Self.debugBytesMax) { debugData.append(bytes[index]) }
    }

    private static func number(_ bytes: Span<UInt8>, at index: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 << 8 | UInt32(bytes[index + $1]) }
    }
}
