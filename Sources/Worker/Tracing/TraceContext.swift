/// The caller's trace as its `traceparent` field gives it (W3C Trace Context, §3.2).
struct TraceContext: Equatable {
    var traceIDHigh: UInt64
    var traceIDLow: UInt64
    var parentSpanID: UInt64
    var flags: UInt8

    static let sampledFlag: UInt8 = 0x01
    /// The trace id was made by chance (W3C Trace Context level 2).
    static let randomFlag: UInt8 = 0x02

    var isSampled: Bool { flags & Self.sampledFlag != 0 }

    /// `version "-" trace-id "-" parent-id "-" flags`, lower-case hexadecimal. Version ff is invalid, version
    /// 00 has nothing behind the flags, a higher version may go on after another dash (§3.2.1, §4.3). Flags
    /// that are not defined are cleared, because what we pass on must have them so (§3.2.2.5.2).
    init?(_ value: Span<UInt8>) {
        guard value.count >= 55, value[2] == Self.dash, value[35] == Self.dash, value[52] == Self.dash,
            let version = Self.hex(value, 0..<2), version != 0xFF,
            let high = Self.hex(value, 3..<19), let low = Self.hex(value, 19..<35),
            let parent = Self.hex(value, 36..<52), let flags = Self.hex(value, 53..<55)
        else { return nil }
        guard value.count == 55 || (version > 0 && value[55] == Self.dash) else { return nil }
        guard high | low != 0, parent != 0 else { return nil }
        traceIDHigh = high
        traceIDLow = low
        parentSpanID = parent
        self.flags = UInt8(flags) & (Self.sampledFlag | Self.randomFlag)
    }

    init(traceIDHigh: UInt64, traceIDLow: UInt64, parentSpanID: UInt64, flags: UInt8) {
        self.traceIDHigh = traceIDHigh
        self.traceIDLow = traceIDLow
        self.parentSpanID = parentSpanID
        self.flags = flags
    }

    private static let dash = UInt8(ascii: "-")

    private static func hex(_ bytes: Span<UInt8>, _ range: Range<Int>) -> UInt64? {
        var value: UInt64 = 0
        for index in range {
            let byte = bytes[index]
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            default: return nil
            }
            value = value << 4 | UInt64(digit)
        }
        return value
    }
}
