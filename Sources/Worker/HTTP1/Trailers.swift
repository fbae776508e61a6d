/// Trailer fields that may go on to the other side (RFC 9110 §6.5.1).
enum Trailers {
    private static let fieldsMax = 64

    /// Whether a whole section, with its empty line, can be read in one way only.
    static func isWellFormed(_ section: [UInt8]) -> Bool {
        let table = FieldTable(capacity: 8)
        return FieldSection.parse(section.span, from: 0, into: table, fieldsMax: fieldsMax)
            == .complete(end: section.count)
    }

    /// Trailer lines without those that frame, route or belong to one connection, and without the empty
    /// line at the end.
    static func forwardable(_ section: [UInt8]) -> [UInt8] {
        guard !section.isEmpty else { return [] }
        let table = FieldTable(capacity: 8)
        let bytes = section.span
        guard case .complete = FieldSection.parse(bytes, from: 0, into: table, fieldsMax: fieldsMax) else { return [] }
        var kept: [UInt8] = []
        for line in table.lines where line.known == .other {
            for index in line.line { kept.append(bytes[index]) }
        }
        return kept
    }
}
