import CShims
import Glibc
import Logging
import ShmRing
import Testing

@testable import Master

@Suite struct ServiceDutiesTests {
    private let folder = TemporaryFolder()
    private let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    private func duties(
        _ policy: ServicePolicy = ServicePolicy(), _ stage: ServiceDuties.Stage = .starting, watchdogUsec: Int = 0
    ) throws -> (ServiceDuties, NotifySocket) {
        let manager = try NotifySocket(#require(SocketAddress(unixPath: folder.file("notify"))))
        let environment = ["NOTIFY_SOCKET": folder.file("notify"), "WATCHDOG_USEC": "\(watchdogUsec)"]
        let duties = try ServiceDuties(policy, stage: stage, processID: 42, environment: environment, nowNs: 1000)
        return (duties, manager)
    }

    private func pass(_ duties: ServiceDuties, _ stage: ServiceDuties.Stage, nowNs: UInt64 = 1000) -> Bool {
        duties.timePassed(stage, nowNs: nowNs, logger) { _ in true }
    }

    @Test func theManagerHearsOfEachStageOnce() throws {
        let (duties, manager) = try duties()
        let stages: [(ServiceDuties.Stage, String?)] = [
            (.starting, nil), (.serving(generation: 1), "READY=1"), (.serving(generation: 1), nil),
            (.reloading, "RELOADING=1"), (.reloading, nil), (.serving(generation: 1), "READY=1"),
            (.serving(generation: 2), "READY=1"), (.stopping, "STOPPING=1"), (.stopping, nil),
        ]
        for (stage, message) in stages {
            #expect(!pass(duties, stage))
            #expect(manager.receive().first == message)
        }
    }

    /// The image before it has told of the reload.
    @Test func anImageThatHasTakenOverTellsOfItsEndOnly() throws {
        let (duties, manager) = try duties(ServicePolicy(), .reloading)
        #expect(!pass(duties, .reloading))
        #expect(manager.receive() == [])
        #expect(!pass(duties, .serving(generation: 3)))
        #expect(manager.receive().first == "READY=1")
    }

    @Test func thePIDFileComesWithReadinessAndGoesAtTheEnd() throws {
        let (duties, _) = try duties(ServicePolicy(pidFile: folder.file("pid")))
        #expect(!pass(duties, .starting))
        #expect(folder.names == ["notify"])
        #expect(!pass(duties, .serving(generation: 1)))
        #expect(try SmallFile.text(folder.file("pid")) == "42\n")
        duties.ended()
        #expect(folder.names == ["notify"])
    }

    @Test func aReloadLeavesThePIDFileOfASuccessorAlone() throws {
        let (duties, _) = try duties(ServicePolicy(pidFile: folder.file("pid")))
        #expect(!pass(duties, .serving(generation: 1)))
        folder.write("43\n", to: "pid")
        #expect(!pass(duties, .reloading))
        #expect(!pass(duties, .serving(generation: 2)))
        #expect(try SmallFile.text(folder.file("pid")) == "43\n")
    }

    @Test func theWatchdogIsFedInTime() throws {
        let (duties, manager) = try duties(watchdogUsec: 2)
        #expect(duties.wakeAtNs == 1000)
        #expect(!pass(duties, .starting))
        #expect(manager.receive() == ["WATCHDOG=1"])
        #expect(duties.wakeAtNs == 2000)
        #expect(!pass(duties, .starting, nowNs: 1999))
        #expect(manager.receive() == [])
    }

    @Test func aChangeOfTheFileAsksForAReloadUnlessOneHasReadIt() throws {
        folder.write("one", to: "lb.json")
        let watched = WatchedFile(path: folder.file("lb.json"), text: "one")
        let (duties, _) = try duties(ServicePolicy(watched: [watched]))
        func settles() throws -> Bool {
            _ = pass(duties, .starting)
            return pass(duties, .starting, nowNs: try #require(duties.wakeAtNs))
        }
        #expect(try !settles())
        folder.write("two", to: "lb.json")
        #expect(try settles())
        folder.write("three", to: "lb.json")
        duties.configurationRead([WatchedFile(path: watched.path, text: "three")], nowNs: 1000)
        #expect(try !settles())
    }

    @Test func aFolderThatIsNotThereIsAFailureOfTheStart() {
        let watched = [WatchedFile(path: "/nowhere/lb.json", text: "")]
        let error = #expect(throws: StartFailure.self) { try duties(ServicePolicy(watched: watched)) }
        #expect(error?.message.contains("cannot watch /nowhere:") == true)
    }
}
