// Any bytes as a response, the first byte choosing the request's method. Checked: a verdict is final, an
// accepted head is what the plainest reader would read, and framing is not ambiguous.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let input = unsafe FuzzInput(start, count)
    check(input, ResponseParser(), answering: .get)
    check(input, ResponseParser(headBytesMax: 128), answering: .head)
    return 0
}

private func check(_ input: FuzzInput, _ parser: ResponseParser, answering method: Method) {
    let table = FieldTable()
    for count in input.prefixCounts {
        let prefix = Array(input.bytes.prefix(count))
        let part = parser.parse(prefix.span, answering: method, into: table)
        if part == .incomplete { continue }
        require(part == parser.parse(input.bytes.span, answering: method, into: table), "a verdict is final")
    }
    guard case .complete(let head) = parser.parse(input.bytes.span, answering: method, into: table) else { return }
    require(head.headBytes <= parser.headBytesMax, "the head is within its limit")
    require(table.lines.count <= ResponseParser.fieldsMax, "the fields are within their limit")
    checkStatusLine(input.bytes, head)
    let fields = HeadInvariants.fields(
        input.bytes, table, fieldsStart: head.fieldsStart, headBytes: head.headBytes)
    checkFraming(head, fields, answering: method)
}

private func checkStatusLine(_ bytes: [UInt8], _ head: ResponseHead) {
    let line = Array(bytes[..<(head.fieldsStart - 2)])
    require(line.count >= 12 && String(decoding: line[..<7], as: UTF8.self) == "HTTP/1.", "the version begins the line")
    require(line[8] == 0x20 && (line.count == 12 || line[12] == 0x20), "the status code stands alone")
    require(Int(String(decoding: line[9..<12], as: UTF8.self)) == head.status, "the status is what the line says")
    require((100...999).contains(head.status), "the status has three digits")
    require(Array(line[9...]) == Array(bytes[head.statusText]), "the status text is the rest of the line")
}

private func checkFraming(_ head: ResponseHead, _ fields: [PlainField], answering method: Method) {
    let isBodyless = method == .head || head.status < 200 || head.status == 204 || head.status == 304
    let isChunked = fields.contains { $0.name == "transfer-encoding" }
    HeadInvariants.checkFraming(fields, isChunked: isChunked, lengthBytes: head.contentLength)
    switch head.framing {
    case .none: require(isBodyless || head.contentLength == 0, "no body where none can be")
    case .length(let count): require(!isBodyless && count == head.contentLength, "the length is the field's")
    case .chunked: require(!isBodyless && isChunked && head.minorVersion > 0, "chunked is what the field says")
    case .untilClose:
        require(!isBodyless && !isChunked && head.contentLength == nil, "until close is the last resort")
        require(!head.isPersistent, "a body until close ends the connection")
    }
}
