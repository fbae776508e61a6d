import ShmRing
import Testing

@Suite struct CivilTimeTests {
    private func date(_ days: Int, _ secondOfDay: Int = 0, ns: UInt64 = 0) -> String {
        let time = CivilTime(unixNs: UInt64(days * 86400 + secondOfDay) * 1_000_000_000 + ns)
        return "\(time.year)-\(time.month)-\(time.day) \(time.hour):\(time.minute):\(time.second).\(time.microsecond)"
    }

    @Test(arguments: [
        (0, "1970-1-1"), (58, "1970-2-28"), (59, "1970-3-1"), (789, "1972-2-29"), (790, "1972-3-1"),
        (11_016, "2000-2-29"), (11_017, "2000-3-1"), (11_322, "2000-12-31"), (20_512, "2026-2-28"),
        (20_513, "2026-3-1"), (21_243, "2028-2-29"), (47_540, "2100-2-28"), (47_541, "2100-3-1"),
    ])
    func daysAreDates(days: Int, text: String) {
        #expect(date(days) == "\(text) 0:0:0.0")
    }

    /// Against counting the days of each month, over 500 years.
    @Test func everyDayFollowsTheOneBefore() {
        var (year, month, day) = (1970, 1, 1)
        for days in 0..<(365 * 500) {
            let time = CivilTime(unixNs: UInt64(days) * 86_400_000_000_000)
            guard (time.year, time.month, time.day) == (year, month, day) else {
                return #expect(Bool(false), "day \(days) is \(time), should be \(year)-\(month)-\(day)")
            }
            day += 1
            if day > Self.daysOf(month, year) { (month, day) = (month + 1, 1) }
            if month > 12 { (year, month) = (year + 1, 1) }
        }
    }

    private static func daysOf(_ month: Int, _ year: Int) -> Int {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        return [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    }

    @Test func theTimeOfDayIsExact() {
        #expect(date(0, 86_399, ns: 999_999_999) == "1970-1-1 23:59:59.999999")
        #expect(date(20_000, 3_661, ns: 1_000) == "2024-10-4 1:1:1.1")
    }
}
