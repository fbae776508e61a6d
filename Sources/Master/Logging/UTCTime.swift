/// Moments as RFC 3339 §5.6 writes them, in UTC with milliseconds: "2026-02-28T09:05:07.042Z".
enum UTCTime {
    private static let msPerDay: UInt64 = 86_400_000

    /// - Parameter unixNs: Nanoseconds since 1970-01-01T00:00:00Z.
    static func text(unixNs: UInt64) -> String {
        let (days, ms) = (unixNs / 1_000_000).quotientAndRemainder(dividingBy: msPerDay)
        let date = civilDate(days: Int(days))
        let time = [(ms / 3_600_000, 2), (ms / 60_000 % 60, 2), (ms / 1000 % 60, 2)].map(padded).joined(separator: ":")
        return "\(padded(UInt64(date.year), 4))-\(padded(UInt64(date.month), 2))-\(padded(UInt64(date.day), 2))"
            + "T\(time).\(padded(ms % 1000, 3))Z"
    }

    /// The Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin on 1 March, so that
    /// the leap day is a year's last (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    private static func civilDate(days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let (era, dayOfEra) = shifted.quotientAndRemainder(dividingBy: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        return (era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * monthFromMarch + 2) / 5 + 1)
    }

    private static func padded(_ value: UInt64, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
