import ShmRing

/// Moments as RFC 3339 §5.6 writes them, in UTC with milliseconds: "2026-02-28T09:05:07.042Z".
enum UTCTime {
    /// - Parameter unixNs: Nanoseconds since 1970-01-01T00:00:00Z.
    static func text(unixNs: UInt64) -> String {
        let moment = CivilTime(unixNs: unixNs)
        let date = [padded(moment.year, 4), padded(moment.month, 2), padded(moment.day, 2)].joined(separator: "-")
        let time = [moment.hour, moment.minute, moment.second].map { padded($0, 2) }.joined(separator: ":")
        return "\(date)T\(time).\(padded(moment.microsecond / 1000, 3))Z"
    }

    private static func padded(_ value: Int, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
