/// How a log line is written down.
enum LogFormat: String, Choice {
    /// `key=value` pairs, values quoted where needed.
    case logfmt
    /// One JSON object (RFC 8259) a line.
    case json
}

/// One line of the log: pairs of key and value in a fixed order, ending in a newline.
///
/// Whatever the values hold, the line stays one line and its pairs stay apart: control characters, line
/// separators and direction marks are escaped, quotes and backslashes too, long values are cut, and keys
/// are reduced to a small alphabet.
struct LogLine {
    /// Longer values are cut; with few fields a line stays below PIPE_BUF, so that a pipe keeps it whole.
    static let valueScalarsMax = 1000

    private(set) var fields: [(key: String, value: String)] = []

    mutating func add(_ key: String, _ value: String) {
        fields.append((Self.plainKey(key), Self.cut(value)))
    }

    /// The line with its newline.
    func text(as format: LogFormat) -> String {
        switch format {
        case .logfmt: fields.map { "\($0.key)=\(Self.logfmtValue($0.value))" }.joined(separator: " ") + "\n"
        case .json: "{" + fields.map { "\"\($0.key)\":\(Self.quoted($0.value))" }.joined(separator: ",") + "}\n"
        }
    }

    private static func logfmtValue(_ value: String) -> String {
        let isBare =
            !value.isEmpty
            && value.unicodeScalars.allSatisfy { scalar in
                PrintableText.isPlain(scalar) && !" \"=\\".unicodeScalars.contains(scalar)
            }
        return isBare ? value : quoted(value)
    }

    /// A JSON text (RFC 8259 §7).
    static func quoted(_ value: String) -> String {
        var result = "\""
        for scalar in value.unicodeScalars {
            let mustEscape = !PrintableText.isPlain(scalar) || scalar == "\"" || scalar == "\\"
            result += mustEscape ? PrintableText.escape(scalar) : String(scalar)
        }
        return result + "\""
    }

    private static func plainKey(_ key: String) -> String {
        let plain = key.unicodeScalars.map { scalar in
            scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == ".")
                ? scalar : "_"
        }
        return plain.isEmpty ? "_" : String(String.UnicodeScalarView(plain))
    }

    private static func cut(_ value: String) -> String {
        guard value.unicodeScalars.count > valueScalarsMax else { return value }
        return String(String.UnicodeScalarView(value.unicodeScalars.prefix(valueScalarsMax))) + "…"
    }
}
