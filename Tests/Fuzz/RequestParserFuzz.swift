// Any bytes as a request. Checked: a verdict is final, an accepted head is what the plainest reader would
// read, and a head that frames its message in two ways is not accepted.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let input = unsafe FuzzInput(start, count)
    check(input, RequestParser.Limits())
    check(input, RequestParser.Limits(headBytesMax: 256, targetBytesMax: 64, fieldsMax: 6))
    return 0
}

private func check(_ input: FuzzInput, _ limits: RequestParser.Limits) {
    let parser = RequestParser(limits: limits)
    let table = FieldTable()
    for count in input.prefixCounts {
        let prefix = Array(input.bytes.prefix(count))
        let part = parser.parse(prefix.span, into: table)
        if part != .incomplete { require(part == parser.parse(input.bytes.span, into: table), "a verdict is final") }
    }
    guard case .complete(let head) = parser.parse(input.bytes.span, into: table) else { return }
    require(head.headBytes <= limits.headBytesMax, "the head is within its limit")
    require(head.target.count <= limits.targetBytesMax, "the target is within its limit")
    require(table.lines.count <= limits.fieldsMax, "the fields are within their limit")
    checkRequestLine(input.bytes, head)
    let fields = HeadInvariants.fields(
        input.bytes, table, fieldsStart: head.fieldsStart, headBytes: head.headBytes)
    checkMeaning(input.bytes, head, fields)
}

private func checkRequestLine(_ bytes: [UInt8], _ head: RequestHead) {
    let parts = bytes[..<(head.fieldsStart - 2)].split(separator: 0x20, omittingEmptySubsequences: false)
    require(parts.count == 3, "a request line has three parts")
    require(parts[0] == bytes[head.methodText] && !parts[0].isEmpty, "the method is the first")
    require(parts[1] == bytes[head.target] && !parts[1].isEmpty, "the target is the second")
    let version = String(decoding: parts[2], as: UTF8.self)
    require(version.hasPrefix("HTTP/1.") && version.utf8.count == 8, "the version is the third")
    require((version == "HTTP/1.0") == (head.minorVersion == 0), "the version is understood")
    require(!parts[1].contains { $0 <= 0x20 || $0 == 0x7F || $0 == 0x23 }, "a target is visible and no fragment")
    require(head.method != .connect, "CONNECT is refused")
    for range in [head.path, head.authority] {
        require(range.lowerBound >= 0 && range.upperBound <= head.headBytes, "ranges lie inside the head")
    }
    require(
        !bytes[head.authority].contains { [0x20, 0x2C, 0x2F, 0x40, 0x23, 0x3F, 0x5C].contains($0) }, "one plain host")
}

private func checkMeaning(_ bytes: [UInt8], _ head: RequestHead, _ fields: [PlainField]) {
    let hosts = fields.filter { $0.name == "host" }
    require(hosts.count == 1 || (hosts.isEmpty && head.minorVersion == 0), "one Host")
    if head.targetForm == .origin, let host = hosts.first {
        require(host.value == bytes[head.authority], "the authority of an origin form is Host")
    }
    let hasLength = fields.contains { $0.name == "content-length" }
    switch head.framing {
    case .none: HeadInvariants.checkFraming(fields, isChunked: false, lengthBytes: hasLength ? 0 : nil)
    case .length(let count): HeadInvariants.checkFraming(fields, isChunked: false, lengthBytes: count)
    case .chunked:
        require(head.minorVersion > 0, "HTTP/1.0 knows no chunks")
        HeadInvariants.checkFraming(fields, isChunked: true, lengthBytes: nil)
    case .untilClose: fatalError("a request never lasts until the connection closes")
    }
    if head.wantsUpgrade {
        let upgrades = fields.filter { $0.name == "upgrade" }.map {
            String(decoding: $0.value, as: UTF8.self).lowercased()
        }
        require(upgrades.count == 1, "one Upgrade field")
        let names = upgrades[0].split(separator: ",").map { $0.split(separator: "/").first ?? "" }
        require(!names.contains { $0.filter { $0 != " " && $0 != "\t" } == "h2c" }, "never cleartext HTTP/2")
    }
}
