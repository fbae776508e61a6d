import Glibc
import ShmRing
import Testing

@testable import Exporter

@Suite struct ShutdownWatchTests {
    /// A watch and the ends that the others hold.
    private struct Ties: ~Copyable {
        var watch: ShutdownWatch
        private(set) var master: ControlChannel?
        private var writeEnd: FileDescriptor?

        init() throws {
            let pair = try ControlChannel.makePair()
            var ends: [Int32] = [-1, -1]
            guard unsafe pipe(&ends) == 0 else { throw Errno.last }
            watch = ShutdownWatch(control: pair.child, writersAlive: ends[0])
            master = ControlChannel(owning: pair.master)
            writeEnd = FileDescriptor(owning: ends[1])
        }

        mutating func masterDies() { master = nil }
        mutating func lastWriterDies() { writeEnd = nil }

        mutating func mustDrain() -> Bool {
            watch.look()
            return watch.mustDrain
        }

        func sendDrain() { master?.send(.drain) }
        func masterReceives() -> ControlChannel.Reading? { master?.receive() }
    }

    @Test func readyReachesTheMaster() throws {
        let ties = try Ties()
        ties.watch.sayReady()
        let reading = ties.masterReceives()
        #expect(reading == .message(.ready))
    }

    @Test func drainIsHeard() throws {
        var ties = try Ties()
        let before = ties.mustDrain()
        ties.sendDrain()
        let after = ties.mustDrain()
        #expect(!before)
        #expect(after)
    }

    @Test func orphanedExporterWaitsForTheLastWriter() throws {
        var ties = try Ties()
        ties.masterDies()
        let whileWritersLive = ties.mustDrain()
        let descriptorsLeft = ties.watch.descriptors.count
        ties.lastWriterDies()
        let afterwards = ties.mustDrain()
        #expect(!whileWritersLive)
        #expect(descriptorsLeft == 1)
        #expect(afterwards)
        #expect(ties.watch.descriptors == [])
    }
}
