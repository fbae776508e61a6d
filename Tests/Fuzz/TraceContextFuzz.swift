// Any bytes as a traceparent value, checked against a reading by texts (W3C Trace Context §3.2, §4.3).

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let bytes = unsafe FuzzInput(start, count).bytes
    let context = TraceContext(bytes.span)
    let plain = plainReading(bytes)
    require((context == nil) == (plain == nil), "both readers accept the same")
    guard let context, let plain else { return 0 }
    require(hex(context.traceIDHigh) + hex(context.traceIDLow) == plain.traceID, "the trace id is the text's")
    require(hex(context.parentSpanID) == plain.parentID, "the parent id is the text's")
    require(context.flags == plain.flags & 3, "flags are the text's, those alone that are defined")
    require(context.isSampled == (plain.flags & 1 == 1), "the first flag says sampled")
    return 0
}

private func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}

private func plainReading(_ bytes: [UInt8]) -> (traceID: String, parentID: String, flags: UInt8)? {
    guard let text = String(validating: bytes.prefix(55), as: UTF8.self), text.utf8.count == 55 else { return nil }
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.map(\.utf8.count) == [2, 32, 16, 2],
        parts.allSatisfy({ $0.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) } }), parts[0] != "ff",
        parts[1].contains(where: { $0 != "0" }), parts[2].contains(where: { $0 != "0" })
    else { return nil }
    guard bytes.count == 55 || (parts[0] != "00" && bytes[55] == 0x2D) else { return nil }
    return (String(parts[1]), String(parts[2]), UInt8(parts[3], radix: 16)!)
}
