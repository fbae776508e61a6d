/// A date and time of day in UTC, in the proleptic Gregorian calendar.
public struct CivilTime: Equatable, Sendable {
    public let year: Int
    public let month: Int
    public let day: Int
    public let hour: Int
    public let minute: Int
    public let second: Int
    public let microsecond: Int

    /// Days to date by counting 400-year eras from 1 March of year 0 (Howard Hinnant, "chrono-Compatible
    /// Low-Level Date Algorithms").
    /// - Parameter unixNs: Nanoseconds since 1970-01-01T00:00:00Z.
    public init(unixNs: UInt64) {
        let seconds = Int(unixNs / 1_000_000_000)
        microsecond = Int(unixNs % 1_000_000_000) / 1000
        let secondOfDay = seconds % 86400
        hour = secondOfDay / 3600
        minute = secondOfDay / 60 % 60
        second = secondOfDay % 60
        let days = seconds / 86400 + 719_468
        let era = days / 146_097
        let dayOfEra = days % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * shifted + 2) / 5 + 1
        month = shifted < 10 ? shifted + 3 : shifted - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }
}
