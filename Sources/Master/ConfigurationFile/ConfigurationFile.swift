/// What a configuration file says, as the arguments and backends that say the same on the command line.
///
/// Every value has been checked by itself when it exists. What concerns several, and what is missing,
/// `Configuration` finds.
struct ConfigurationFile {
    /// Flags with their values, in the order of the file. Flags of the command line go behind them and win.
    private(set) var arguments: [String] = []
    private(set) var backends: [BackendText] = []

    /// - Parameters:
    ///   - path: Names the file in errors.
    ///   - text: What stands in it.
    /// - Throws: The first thing that cannot be used, with its place.
    init(path: String, text: String) throws(StartFailure) {
        let place = FilePlace(path: path, text: text)
        do throws(JSONSyntaxError) {
            let root = try LooseJSONParser.parse(text)
            let reader = try ConfigurationReader(root: root)
            try reader.checkValues()
            arguments = reader.values.map { $0.setting.argument($0.text) }
            backends = reader.backends
        } catch {
            throw place.failure(error)
        }
    }
}

/// A file and its text, to say where in it something is wrong.
private struct FilePlace {
    let path: String
    let text: String

    func failure(_ error: JSONSyntaxError) -> StartFailure {
        let (line, column) = position(error.offset)
        return .usage("\(path): \(error.message) (line \(line), column \(column))")
    }

    /// Both counted from 1; a column is a Unicode scalar.
    private func position(_ offset: Int) -> (line: Int, column: Int) {
        let before = Array(text.utf8.prefix(offset))
        let line = before.count { $0 == 0x0A } + 1
        let start = before.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0
        return (line, String(decoding: before[start...], as: UTF8.self).unicodeScalars.count + 1)
    }
}

/// Walks through the parsed file and takes from each place what may stand there. Errors name the path.
private struct ConfigurationReader {
    struct Value {
        let setting: Setting
        let text: String
        let node: JSONNode
    }

    private(set) var values: [Value] = []
    private(set) var backends: [BackendText] = []

    private static let settings = Dictionary(uniqueKeysWithValues: Setting.all.map { ($0.path, $0) })

    init(root: JSONNode) throws(JSONSyntaxError) {
        try readObject(root, at: "")
    }

    private mutating func readObject(_ node: JSONNode, at path: String) throws(JSONSyntaxError) {
        let known = Self.keys(at: path)
        for member in try node.members(at: path, known: known) {
            try read(member.node, at: path.isEmpty ? member.key : "\(path).\(member.key)")
        }
    }

    private mutating func read(_ node: JSONNode, at path: String) throws(JSONSyntaxError) {
        if node.value == .null { return }
        if let setting = Self.settings[path] { return try readValue(node, of: setting) }
        switch path {
        case "listeners": try readListeners(node)
        case "backends": backends = try BackendEntry.read(node, at: path)
        default: try readObject(node, at: path)
        }
    }

    private mutating func readListeners(_ node: JSONNode) throws(JSONSyntaxError) {
        let elements = try node.elements(at: "listeners", of: "objects such as {\"port\": 8080}")
        guard let first = elements.first else {
            throw node.error("listeners", "name a place to listen, such as {\"port\": 8080}, or leave the key out")
        }
        guard elements.count == 1 else {
            throw elements[1].error("listeners[1]", "this version listens in one place; leave one object")
        }
        try readObject(first, at: "listeners[0]")
    }

    private mutating func readValue(_ node: JSONNode, of setting: Setting) throws(JSONSyntaxError) {
        switch (setting.form, node.value) {
        case (.quantity, .number(let text)), (.quantity, .string(let text)), (.text, .string(let text)):
            values.append(Value(setting: setting, text: text, node: node))
        case (.flag, .bool(let isOn)):
            values.append(Value(setting: setting, text: "\(isOn)", node: node))
        case (.texts, .string(let text)): values.append(Value(setting: setting, text: text, node: node))
        case (.texts, .array(let elements)):
            for element in elements { try readElement(element, of: setting) }
        case (.texts, _): throw node.error(setting.path, "use a list of texts in quotes, not \(node.shown)")
        case (.flag, _): throw node.error(setting.path, "use true or false, not \(node.shown)")
        case (.text, _): throw node.error(setting.path, "use a text in quotes, not \(node.shown)")
        case (.quantity, _): throw Self.unusable(Value(setting: setting, text: "", node: node))
        }
    }

    private mutating func readElement(_ node: JSONNode, of setting: Setting) throws(JSONSyntaxError) {
        guard case .string(let text) = node.value else {
            throw node.error(setting.path, "use texts in quotes, not \(node.shown)")
        }
        values.append(Value(setting: setting, text: text, node: node))
    }

    /// Has the command line's parser check all values. It does that all together, since each run of it costs a
    /// millisecond, and one by one only to find the one it refuses.
    func checkValues() throws(JSONSyntaxError) {
        let all = values.map { $0.setting.argument($0.text) }
        guard (try? CommandLineOptions.parsed(all)) == nil else { return }
        for value in values where (try? CommandLineOptions.parsed([value.setting.argument(value.text)])) == nil {
            throw Self.unusable(value)
        }
    }

    private static func unusable(_ value: Value) -> JSONSyntaxError {
        // The parser takes no empty value at all and says nothing of what it would take.
        let text = value.text.isEmpty ? "?" : value.text
        let mend = CommandLineOptions.mend(flag: value.setting.flag, value: text) ?? "use a text that says something"
        return value.node.error(value.setting.path, "\(mend), not \(value.node.shown)")
    }

    /// The keys that an object may have.
    private static func keys(at path: String) -> [String] {
        let prefix = path.isEmpty ? "" : path + "."
        let paths = Setting.all.map(\.path) + ["backends"]
        var keys: [String] = []
        for path in paths where path.hasPrefix(prefix) {
            let key = String(path.dropFirst(prefix.count).prefix { $0 != "." && $0 != "[" })
            if !keys.contains(key) { keys.append(key) }
        }
        return keys
    }
}

/// One element of `backends`: what `--backend` takes, or an object that says more.
private enum BackendEntry {
    private static let keys = ["address", "connections_max"]

    static func read(_ node: JSONNode, at path: String) throws(JSONSyntaxError) -> [BackendText] {
        let elements = try node.elements(at: path, of: "texts such as \"127.0.0.1:9001\"")
        return try elements.enumerated().map { (index, element) throws(JSONSyntaxError) in
            try entry(element, at: "\(path)[\(index)]")
        }
    }

    private static func entry(_ node: JSONNode, at path: String) throws(JSONSyntaxError) -> BackendText {
        guard case .object = node.value else { return try backend(node, at: path) }
        let members = try node.members(at: path, known: keys)
        guard let address = members.first(where: { $0.key == "address" }) else {
            throw node.error(path, "the address is missing; write {\"address\": \"127.0.0.1:9001\"}")
        }
        var backend = try backend(address.node, at: "\(path).address")
        if let most = members.first(where: { $0.key == "connections_max" })?.node {
            backend.connectionsMax = try count(most, at: "\(path).connections_max")
        }
        return backend
    }

    private static func backend(_ node: JSONNode, at path: String) throws(JSONSyntaxError) -> BackendText {
        guard case .string(let text) = node.value else {
            throw node.error(path, "use a text such as \"127.0.0.1:9001\", not \(node.shown)")
        }
        do throws(BadValue) {
            return try BackendText(text)
        } catch {
            throw node.error(path, "\(error), not \(node.shown)")
        }
    }

    private static func count(_ node: JSONNode, at path: String) throws(JSONSyntaxError) -> Int? {
        let text: String
        switch node.value {
        case .null: return nil
        case .number(let number): text = number
        case .string(let string): text = string
        case .bool, .array, .object: text = ""
        }
        do throws(BadValue) {
            return try CountText.parse(text, in: UpstreamOptions.connectionsRange)
        } catch {
            throw node.error(path, "\(error), not \(node.shown)")
        }
    }
}

extension JSONNode {
    /// The value for an error message: short, and one that a person finds again.
    fileprivate var shown: String {
        switch value {
        case .null: "null"
        case .bool(let isOn): "\(isOn)"
        case .number(let text): Self.cut(text)
        case .string(let text): "\"\(Self.cut(text))\""
        case .array: "a list"
        case .object: "an object"
        }
    }

    fileprivate func error(_ path: String, _ message: String) -> JSONSyntaxError {
        JSONSyntaxError(message: path.isEmpty ? message : "\(path): \(message)", offset: offset)
    }

    fileprivate func elements(at path: String, of what: String) throws(JSONSyntaxError) -> [JSONNode] {
        guard case .array(let elements) = value else { throw error(path, "use a list of \(what), not \(shown)") }
        return elements
    }

    /// The members of an object, whose keys are known and each stand once.
    fileprivate func members(at path: String, known: [String]) throws(JSONSyntaxError) -> [Member] {
        guard case .object(let members) = value else { throw error(path, "use an object {...}, not \(shown)") }
        var seen: Set<String> = []
        for member in members {
            guard known.contains(member.key) else { throw Self.unknown(member, at: path, known: known) }
            guard seen.insert(member.key).inserted else {
                throw JSONSyntaxError(
                    message: "the key \"\(member.key)\"\(Self.inside(path)) stands twice; leave one",
                    offset: member.offset)
            }
        }
        return members
    }

    private static func unknown(_ member: Member, at path: String, known: [String]) -> JSONSyntaxError {
        let hint =
            if let key = Suggestion.nearest(to: member.key, among: known) ?? elsewhere(member.key) {
                "did you mean \"\(key)\"?"
            } else {
                "there are: \(known.joined(separator: ", "))"
            }
        let message = "unknown key \"\(cut(member.key))\"\(inside(path)); \(hint)"
        return JSONSyntaxError(message: message, offset: member.offset)
    }

    /// The whole path of a setting that has this name in another object, or whose flag has it.
    private static func elsewhere(_ key: String) -> String? {
        let hyphenated = "--" + String(key.map { $0 == "_" ? "-" : $0 })
        return Setting.all.first { $0.path.hasSuffix(".\(key)") || $0.flag == hyphenated }?.path
    }

    private static func inside(_ path: String) -> String {
        path.isEmpty ? "" : " in \(path)"
    }

    private static func cut(_ text: String) -> String {
        let scalars = text.unicodeScalars
        return scalars.count <= 80 ? text : String(String.UnicodeScalarView(scalars.prefix(80))) + "…"
    }
}
