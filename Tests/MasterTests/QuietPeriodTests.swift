import Testing

@testable import Master

@Suite struct QuietPeriodTests {
    private let quietNs = QuietPeriod.quietNs

    private func expect(_ quiet: inout QuietPeriod, isOver: Bool, atNs: UInt64) {
        let answer = quiet.isOver(nowNs: atNs)
        #expect(answer == isOver)
    }

    @Test func nothingHappensWithoutAnEvent() {
        var quiet = QuietPeriod()
        #expect(quiet.wakeAtNs == nil)
        expect(&quiet, isOver: false, atNs: .max)
    }

    @Test func aBurstIsOverOnceWhenItHasBeenQuiet() {
        var quiet = QuietPeriod()
        quiet.eventOccurred(nowNs: 1000)
        quiet.eventOccurred(nowNs: 1500)
        #expect(quiet.wakeAtNs == 1500 + quietNs)
        expect(&quiet, isOver: false, atNs: 1499 + quietNs)
        expect(&quiet, isOver: true, atNs: 1500 + quietNs)
        expect(&quiet, isOver: false, atNs: 1501 + quietNs)
        #expect(quiet.wakeAtNs == nil)
    }

    @Test func eventsThatNeverStopEndTheWaitAllTheSame() {
        var quiet = QuietPeriod()
        var nowNs: UInt64 = 5
        while !quiet.isOver(nowNs: nowNs) {
            quiet.eventOccurred(nowNs: nowNs)
            nowNs += quietNs / 2
        }
        #expect(nowNs >= 5 + QuietPeriod.waitNsMax && nowNs < 5 + QuietPeriod.waitNsMax + quietNs)
    }
}
