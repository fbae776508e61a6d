/// The configuration that is in force as a file that says the same: what `--print-config` prints.
enum ConfigurationPrint {
    /// - Returns: JSON without the newline at the end. What is decided at start (the number of workers, when
    ///   none was given) is null, which a file may say as well.
    static func json(_ options: CommandLineOptions) -> String {
        let groups = names().map { name in "  \"\(name)\": \(value(name, options))" }
        return "{\n" + groups.joined(separator: ",\n") + "\n}"
    }

    /// The keys of the outermost object, each once.
    private static func names() -> [String] {
        var names = ["listeners", "backends"]
        for setting in Setting.all where !names.contains(setting.group) { names.append(setting.group) }
        return names
    }

    private static func value(_ name: String, _ options: CommandLineOptions) -> String {
        switch name {
        case "listeners": "[{ \(members(of: name, options).joined(separator: ", ")) }]"
        case "backends": list(options.serving.backend.map(backend))
        default:
            if let setting = Setting.all.first(where: { $0.path == name }) {
                setting.json(options)
            } else {
                "{\n    " + members(of: name, options).joined(separator: ",\n    ") + "\n  }"
            }
        }
    }

    private static func members(of group: String, _ options: CommandLineOptions) -> [String] {
        Setting.all.filter { $0.group == group }.map { "\"\($0.key)\": \($0.json(options))" }
    }

    private static func backend(_ backend: BackendText) -> String {
        let address = LogLine.quoted(backend.text)
        guard let most = backend.connectionsMax else { return address }
        return "{ \"address\": \(address), \"connections_max\": \(most) }"
    }

    private static func list(_ elements: [String]) -> String {
        elements.isEmpty ? "[]" : "[\n    " + elements.joined(separator: ",\n    ") + "\n  ]"
    }
}

extension Setting {
    /// The first key of the path.
    fileprivate var group: String { String(path.prefix { $0 != "." && $0 != "[" }) }

    /// The last one.
    fileprivate var key: String {
        String(path[(path.lastIndex(of: ".").map { path.index(after: $0) } ?? path.startIndex)...])
    }
}
