// Any bytes as a configuration file's text: parsing ends, errors point into the text, and what is parsed is as long
// as what it was made from at most.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let bytes = unsafe FuzzInput(start, count).bytes
    // The file is refused before if it is not UTF-8.
    guard let text = String(validating: bytes, as: UTF8.self) else { return 0 }
    do throws(JSONSyntaxError) {
        check(try LooseJSONParser.parse(text), count: bytes.count, depth: 0)
    } catch {
        require((0...bytes.count).contains(error.offset), "the error points into the text")
        require(!error.message.isEmpty, "the error says something")
    }
    return 0
}

private func check(_ node: JSONNode, count: Int, depth: Int) {
    require(depth < LooseJSONParser.depthMax, "the depth is bounded")
    require((0..<count).contains(node.offset), "a value stands in the text")
    switch node.value {
    case .null, .bool: break
    case .number(let text): require(Double(text) != nil, "a number is one")
    case .string(let text): require(text.utf8.count <= count && !text.utf8.contains(0), "a text fits and has no NUL")
    case .array(let elements): for element in elements { check(element, count: count, depth: depth + 1) }
    case .object(let members):
        for member in members {
            require(member.offset < member.node.offset, "a key stands in front of its value")
            check(member.node, count: count, depth: depth + 1)
        }
    }
}
