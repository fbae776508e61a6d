import ArgumentParser

/// The forms that options of this command line take, so that each is declared in one line: a time in
/// seconds, a size in bytes, a count, one of a few words. Help shows the default, an error names the mend.

extension Option where Value == UInt64 {
    /// A time: seconds on the command line, nanoseconds in the program.
    /// - Parameters:
    ///   - wrappedValue: The default, in nanoseconds.
    ///   - range: What is allowed, in nanoseconds.
    init(wrappedValue: UInt64, seconds range: ClosedRange<UInt64> = SecondsText.timeoutNs, _ help: String) {
        let text = ArgumentHelp("\(help) (default: \(SecondsText.format(wrappedValue)))", valueName: "seconds")
        self.init(wrappedValue: wrappedValue, help: text) { try SecondsText.parse($0, in: range) }
    }
}

extension Option where Value == Int {
    /// A size with an optional k, m or g.
    init(wrappedValue: Int, bytes range: ClosedRange<Int>, _ help: String, zero: String? = nil) {
        let shown = wrappedValue == 0 ? zero ?? "0" : BytesText.format(wrappedValue)
        let text = ArgumentHelp("\(help) (default: \(shown))", valueName: "bytes")
        self.init(wrappedValue: wrappedValue, help: text) { try BytesText.parse($0, in: range) }
    }

    /// A plain number.
    init(
        wrappedValue: Int, name: NameSpecification = .long, count range: ClosedRange<Int>, _ help: String,
        zero: String? = nil
    ) {
        let shown = wrappedValue == 0 ? zero ?? "0" : "\(wrappedValue)"
        let text = ArgumentHelp("\(help) (default: \(shown))", valueName: "n")
        self.init(wrappedValue: wrappedValue, name: name, help: text) { try CountText.parse($0, in: range) }
    }
}

extension Option where Value == Int? {
    /// A plain number that may be missing.
    init(name: NameSpecification = .long, count range: ClosedRange<Int>, _ help: String) {
        self.init(name: name, help: ArgumentHelp("\(help)", valueName: "n")) { try CountText.parse($0, in: range) }
    }
}

/// One of a few words.
typealias Choice = CaseIterable & RawRepresentable<String> & Sendable

extension Option where Value: Choice {
    init(wrappedValue: Value, choice help: String) {
        let text = ArgumentHelp(
            "\(help): \(choices(Value.self)) (default: \(wrappedValue.rawValue))", valueName: "name")
        self.init(wrappedValue: wrappedValue, help: text, transform: parseChoice)
    }
}

/// The value that `text` names.
func parseChoice<C: Choice>(_ text: String) throws(BadValue) -> C {
    guard let value = C(rawValue: text) else { throw BadValue("use one of \(choices(C.self))") }
    return value
}

/// All words of a choice, for people.
func choices<C: Choice>(_ type: C.Type) -> String {
    C.allCases.map(\.rawValue).joined(separator: ", ")
}
