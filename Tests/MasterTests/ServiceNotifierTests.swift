import Glibc
import ShmRing
import Testing

@testable import Master

@Suite struct ServiceNotifierTests {
    private let folder = TemporaryFolder()

    private func pair(_ more: [String: String] = [:]) throws -> (ServiceNotifier, NotifySocket) {
        let path = folder.file("notify")
        let manager = try NotifySocket(#require(SocketAddress(unixPath: path)))
        let environment = ["NOTIFY_SOCKET": path].merging(more) { $1 }
        return (try #require(ServiceNotifier(environment: environment, processID: 42)), manager)
    }

    @Test func eachMessageIsOneDatagramOfAssignments() throws {
        let (notifier, manager) = try pair()
        notifier.ready(processID: 42, status: "serves")
        #expect(manager.receive() == ["READY=1", "MAINPID=42", "STATUS=serves"])
        notifier.reloading(nowNs: 5_000_999)
        #expect(manager.receive() == ["RELOADING=1", "MONOTONIC_USEC=5000", "STATUS=reloading"])
        notifier.watchdog()
        #expect(manager.receive() == ["WATCHDOG=1"])
        notifier.status("a\nREADY=1")
        #expect(manager.receive() == ["STATUS=a\\nREADY=1"])
        notifier.stopping()
        #expect(manager.receive().first == "STOPPING=1")
        #expect(manager.receive() == [])
    }

    @Test func abstractNamesAreUnderstood() throws {
        let name = "load_balancer_test.\(getpid()).\(UInt64.random(in: 0...UInt64.max))"
        let manager = try NotifySocket(#require(SocketAddress(abstractName: name)))
        let notifier = ServiceNotifier(environment: ["NOTIFY_SOCKET": "@\(name)"], processID: 1)
        try #require(notifier).watchdog()
        #expect(manager.receive() == ["WATCHDOG=1"])
    }

    @Test(arguments: [nil, "", "relative", "vsock:2:1", "@", "/" + String(repeating: "x", count: 200)])
    func withoutAManagerThereIsNobodyToTell(name: String?) {
        let environment = name.map { ["NOTIFY_SOCKET": $0] } ?? [:]
        #expect(ServiceNotifier(environment: environment, processID: 1) == nil)
    }

    @Test func aManagerThatIsGoneOrDoesNotReadStopsNobody() throws {
        let (notifier, manager) = try pair()
        for _ in 0..<5000 { notifier.watchdog() }
        #expect(manager.receive() == ["WATCHDOG=1"])
        let nobody = ServiceNotifier(environment: ["NOTIFY_SOCKET": folder.file("nobody")], processID: 1)
        try #require(nobody).watchdog()
    }

    @Test(
        arguments: [
            ([:], nil), (["WATCHDOG_USEC": "3000000"], 1_500_000_000),
            (["WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "42"], 1_500_000_000),
            (["WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "41"], nil), (["WATCHDOG_USEC": "0"], nil),
            (["WATCHDOG_USEC": "x"], nil), (["WATCHDOG_USEC": "18446744073709551615"], nil),
        ] as [([String: String], UInt64?)])
    func theWatchdogWantsToHearTwiceInItsTime(environment: [String: String], watchdogNs: UInt64?) throws {
        #expect(try pair(environment).0.watchdogNs == watchdogNs)
    }

    @Test func theRhythmBeginsAtOnceAndKeepsItsPeriod() {
        var rhythm = WatchdogRhythm(periodNs: 10, nowNs: 100)
        #expect(rhythm.wakeAtNs == 100)
        let due = [100, 109, 110, 150, 159, 160].map { rhythm.isDue(nowNs: $0) }
        #expect(due == [true, false, true, true, false, true])
        #expect(rhythm.wakeAtNs == 170)
        var none = WatchdogRhythm(periodNs: nil, nowNs: 100)
        let isDue = none.isDue(nowNs: 1000)
        #expect(none.wakeAtNs == nil && !isDue)
    }
}
