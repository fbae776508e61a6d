// What must hold of every head that a parser accepts, found out in the plainest way there is: by splitting
// at CRLF and comparing texts, with nothing of the parser's own.

/// One field as the plain reader sees it, the name in lower case.
struct PlainField {
    let name: String
    let value: ArraySlice<UInt8>
}

enum HeadInvariants {
    /// Checks the field section and gives its fields.
    /// - Parameters:
    ///   - bytes: The message.
    ///   - fieldsStart: First byte behind the start line.
    ///   - headBytes: First byte behind the empty line.
    static func fields(_ bytes: [UInt8], _ table: FieldTable, fieldsStart: Int, headBytes: Int) -> [PlainField] {
        require(fieldsStart >= 2 && headBytes >= fieldsStart + 2 && headBytes <= bytes.count, "the head lies inside")
        require(Array(bytes[(headBytes - 2)..<headBytes]) == [0x0D, 0x0A], "an empty line ends the head")
        checkLineEnds(bytes[..<headBytes])
        var at = fieldsStart
        var fields: [PlainField] = []
        for line in table.lines {
            require(line.line.lowerBound == at, "lines follow each other")
            fields.append(field(bytes, line))
            at = line.line.upperBound
        }
        require(at == headBytes - 2, "the last line ends before the empty line")
        return fields
    }

    /// CR and LF stand only together, NUL nowhere.
    private static func checkLineEnds(_ head: ArraySlice<UInt8>) {
        for index in head.indices {
            require(head[index] != 0, "no NUL in a head")
            if head[index] == 0x0D { require(index + 1 < head.endIndex && head[index + 1] == 0x0A, "no bare CR") }
            if head[index] == 0x0A { require(index > 0 && head[index - 1] == 0x0D, "no bare LF") }
        }
    }

    private static func field(_ bytes: [UInt8], _ line: FieldLine) -> PlainField {
        let text = bytes[line.line]
        require(text.suffix(2) == [0x0D, 0x0A], "CRLF ends a line")
        require(!text.dropLast(2).contains(0x0D), "a line is one line")
        guard let colon = text.firstIndex(of: 0x3A) else { fatalError("a line without a colon") }
        let name = text[..<colon]
        require(line.name == line.line.lowerBound..<colon, "the name ends at the first colon")
        require(!name.isEmpty && !name.contains { $0 <= 0x20 || $0 >= 0x7F }, "a name is a token")
        let isSpace: (UInt8) -> Bool = { $0 == 0x20 || $0 == 0x09 }
        var value = text.dropLast(2)[(colon + 1)...].drop(while: isSpace)
        while let last = value.last, isSpace(last) { value.removeLast() }
        require(Array(bytes[line.value]) == Array(value), "a value is what stands between the white space")
        return PlainField(name: String(decoding: name, as: UTF8.self).lowercased(), value: value)
    }

    /// The framing that was understood is the only one that the fields allow (RFC 9112 §6.3).
    /// - Parameter lengthBytes: What the parser took from Content-Length; nil where it took nothing.
    static func checkFraming(_ fields: [PlainField], isChunked: Bool, lengthBytes: Int?) {
        let lengths = fields.filter { $0.name == "content-length" }
        let codings = fields.filter { $0.name == "transfer-encoding" }
        require(codings.isEmpty || lengths.isEmpty, "never both ways of framing")
        require(codings.count <= 1 && lengths.count <= 1, "never one way twice")
        require(isChunked == !codings.isEmpty, "a transfer coding means chunked, and nothing else does")
        for coding in codings {
            require(
                String(decoding: coding.value, as: UTF8.self).lowercased() == "chunked", "the coding is chunked alone")
        }
        let said = lengths.first.map { Int(String(decoding: $0.value, as: UTF8.self)) }
        require(
            lengths.isEmpty || lengths[0].value.allSatisfy { (0x30...0x39).contains($0) }, "a length has only digits")
        require((said ?? nil) == lengthBytes, "the length is what the field says")
    }
}
