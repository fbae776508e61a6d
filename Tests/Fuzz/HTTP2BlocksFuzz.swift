// Any fields as the header block of a request, a response or trailers over HTTP/2. Checked: what is not refused
// becomes one HTTP/1.1 head and nothing behind it, which the HTTP/1.1 parser reads as that one head or refuses.
//
// The input is a list of fields: a byte with the length of the name, one with that of the value, then both.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let input = unsafe FuzzInput(start, count)
    let fields = split(input.bytes)
    checkRequest(fields, hasBody: input.bytes.count.isMultiple(of: 2))
    checkResponse(fields, hasBody: input.bytes.count.isMultiple(of: 2))
    checkTrailers(fields)
    return 0
}

private typealias Field = (name: [UInt8], value: [UInt8])

private func split(_ bytes: [UInt8]) -> [Field] {
    var fields: [Field] = []
    var rest = bytes[...]
    while rest.count >= 2, let nameCount = rest.popFirst(), let valueCount = rest.popFirst() {
        let name = rest.prefix(Int(nameCount))
        rest = rest.dropFirst(name.count)
        let value = rest.prefix(Int(valueCount))
        rest = rest.dropFirst(value.count)
        fields.append((Array(name), Array(value)))
    }
    return fields
}

private let key: [UInt8] = Array("0123456789012345678901==".utf8)

private func checkRequest(_ fields: [Field], hasBody: Bool) {
    let block = RequestBlock(BufferPool(), bytesMax: 2048)
    for field in fields { block.field(field.name.span, field.value.span) }
    block.judge()
    guard block.refusal != .malformed else { return }
    let output = ByteBuffer(capacity: block.headBytesMax)
    block.writeHead(hasBody: hasBody, webSocketKey: key.span, to: output)
    let head = bytes(output)
    checkIsOneHead(head)
    let table = FieldTable()
    let parser = RequestParser(limits: .init(headBytesMax: 1 << 20, targetBytesMax: 1 << 20, fieldsMax: 4096))
    guard case .complete(let read) = parser.parse(head.span, into: table) else { return }
    require(read.headBytes == head.count, "nothing is behind the head")
    require(table.count(of: .host) <= 1, "one Host")
    if block.refusal == nil, !block.isExtendedConnect {
        require(!read.wantsUpgrade && !table.contains(.connection), "nothing about the connection is taken over")
        let isChunked = read.framing == .chunked
        require(isChunked == (hasBody && block.contentLength == nil), "the framing is our own")
    }
}

private func checkResponse(_ fields: [Field], hasBody: Bool) {
    let block = ResponseBlock(BufferPool(), bytesMax: 2048)
    for field in fields { block.field(field.name.span, field.value.span) }
    block.judge()
    guard !block.isMalformed else { return }
    let output = ByteBuffer(capacity: block.headBytesMax)
    block.writeHead(answering: .get, hasBody: hasBody, to: output)
    let head = bytes(output)
    checkIsOneHead(head)
    let table = FieldTable()
    guard
        case .complete(let read) = ResponseParser(headBytesMax: 1 << 20).parse(head.span, answering: .get, into: table)
    else { return }
    require(read.headBytes == head.count, "nothing is behind the head")
    require(read.status == block.status, "the status is the block's")
    require(read.framing != .untilClose, "every response has an end of its own")
}

private func checkTrailers(_ fields: [Field]) {
    var block = TrailerBlock()
    for field in fields { block.field(field.name.span, field.value.span) }
    guard !block.isMalformed else { return }
    checkIsOneHead(Array("x\r\n".utf8) + block.lines + [0x0D, 0x0A])
}

/// CR and LF stand only where a line ends, the empty line only at the end, and NUL nowhere.
private func checkIsOneHead(_ head: [UInt8]) {
    require(!head.contains(0), "no NUL")
    require(head.count >= 4 && Array(head.suffix(4)) == [13, 10, 13, 10], "the empty line is at the end")
    var lineStart = 0
    for index in head.indices {
        if head[index] == 0x0D { require(index + 1 < head.count && head[index + 1] == 0x0A, "no bare CR") }
        guard head[index] == 0x0A else { continue }
        require(index > 0 && head[index - 1] == 0x0D, "no bare LF")
        require(index - lineStart > 1 || index == head.count - 1, "one empty line")
        lineStart = index + 1
    }
}

private func bytes(_ buffer: ByteBuffer) -> [UInt8] {
    let span = buffer.readable
    return span.indices.map { span[$0] }
}
