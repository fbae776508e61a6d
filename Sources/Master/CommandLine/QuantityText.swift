/// Times, sizes and counts as people write them on the command line, and back.
///
/// Only plain decimals are taken: no sign, no exponent, no "inf". Every number has a range.

/// A span of time, written in seconds and kept in nanoseconds.
enum SecondsText {
    static let nsPerSecond: UInt64 = 1_000_000_000
    /// Longer than anybody waits, and far from overflowing a clock in nanoseconds.
    static let nsMax = 365 * 24 * 3600 * nsPerSecond
    /// Timeouts that must let something happen.
    static let timeoutNs: ClosedRange<UInt64> = 1_000_000...nsMax
    /// Delays that may be left out.
    static let delayNs: ClosedRange<UInt64> = 0...nsMax

    /// - Parameters:
    ///   - text: Such as "10" or "0.25".
    ///   - range: In nanoseconds.
    /// - Returns: Nanoseconds.
    static func parse(_ text: String, in range: ClosedRange<UInt64>) throws(BadValue) -> UInt64 {
        guard let ns = nanoseconds(text), range.contains(ns) else {
            throw BadValue("use seconds from \(format(range.lowerBound)) to \(format(range.upperBound)), such as 0.5")
        }
        return ns
    }

    /// Seconds with as many decimals as needed: "0.25", "10".
    static func format(_ ns: UInt64) -> String {
        let (whole, rest) = ns.quotientAndRemainder(dividingBy: nsPerSecond)
        guard rest > 0 else { return "\(whole)" }
        let padded = String(String(nsPerSecond + rest).dropFirst())
        let decimals = padded.reversed().drop { $0 == "0" }.reversed()
        return "\(whole)." + String(decimals)
    }

    private static func nanoseconds(_ text: String) -> UInt64? {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard let whole = WholeNumber.parse(parts[0]), whole <= nsMax / nsPerSecond else { return nil }
        guard parts.count == 2 else { return whole * nsPerSecond }
        guard parts[1].utf8.count <= 9, let fraction = WholeNumber.parse(parts[1]) else { return nil }
        let missingDigits = 9 - parts[1].utf8.count
        return whole * nsPerSecond + (0..<missingDigits).reduce(fraction) { value, _ in value * 10 }
    }
}

/// A number of bytes, with k, m or g for powers of 1,024.
enum BytesText {
    private static let units: [(suffix: Character, shift: Int)] = [("g", 30), ("m", 20), ("k", 10)]

    static func parse(_ text: String, in range: ClosedRange<Int>) throws(BadValue) -> Int {
        guard let bytes = bytes(text), range.contains(bytes) else {
            let bounds = "from \(format(range.lowerBound)) to \(format(range.upperBound))"
            throw BadValue("use bytes \(bounds), with k, m or g for KiB, MiB or GiB, such as 64k")
        }
        return bytes
    }

    /// The number with the largest suffix that loses nothing: "64k", "100".
    static func format(_ bytes: Int) -> String {
        for unit in units where bytes >= 1 << unit.shift && bytes % (1 << unit.shift) == 0 {
            return "\(bytes >> unit.shift)\(unit.suffix)"
        }
        return "\(bytes)"
    }

    private static func bytes(_ text: String) -> Int? {
        let unit = units.first { text.lowercased().last == $0.suffix }
        let digits = unit == nil ? text[...] : text.dropLast()
        guard let number = WholeNumber.parse(digits) else { return nil }
        let (product, overflow) = number.multipliedReportingOverflow(by: 1 << UInt64(unit?.shift ?? 0))
        return overflow ? nil : Int(exactly: product)
    }
}

/// A count.
enum CountText {
    static func parse(_ text: String, in range: ClosedRange<Int>) throws(BadValue) -> Int {
        guard let number = WholeNumber.parse(text[...]), let count = Int(exactly: number), range.contains(count) else {
            throw BadValue("use a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return count
    }
}

/// Decimal digits and nothing else; `UInt64.init` alone would take a sign.
enum WholeNumber {
    static func parse(_ text: Substring) -> UInt64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
        else { return nil }
        return UInt64(text)
    }
}
