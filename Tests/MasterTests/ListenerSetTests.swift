import CShims
import Glibc
import ShmRing
import Testing

@testable import Master

@Suite struct ListenerSetTests {
    private let loopback = ListenAddress(ip: "127.0.0.1", port: 0)

    private func port(of descriptor: Int32) -> UInt16? {
        unsafe SocketAddress { _ = unsafe getsockname(descriptor, $0, $1) }.port
    }

    @Test func everyWorkerHasASocketOfItsOwnOnTheSamePort() throws {
        let set = try ListenerSet(loopback, count: 3)
        let descriptors = (0..<3).flatMap { set.descriptors(worker: $0, of: 3) }
        #expect(Set(descriptors).count == 3)
        #expect(set.address.port > 0)
        #expect(descriptors.allSatisfy { port(of: $0) == set.address.port })
    }

    @Test func socketsNeitherBlockNorSurviveExec() throws {
        let set = try ListenerSet(loopback, count: 1)
        let descriptor = set.descriptors(worker: 0, of: 1)[0]
        #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test(arguments: 1...6)
    func everySocketHasAWorkerAndEveryWorkerASocket(workers: Int) throws {
        let set = try ListenerSet(loopback, count: 4)
        let given = (0..<workers).map { set.descriptors(worker: $0, of: workers) }
        #expect(Set(given.joined()) == Set(set.descriptors))
        #expect(given.allSatisfy { !$0.isEmpty })
        if workers <= 4 { #expect(given.joined().count == 4, "nobody accepts from another's") }
    }

    @Test func aSetGrowsOnItsPortAndKeepsItsSockets() throws {
        let set = try ListenerSet(loopback, count: 1)
        let before = set.descriptors
        try set.grow(to: 3)
        #expect(set.descriptors.count == 3)
        #expect(set.descriptors.first == before.first)
        #expect(set.descriptors.allSatisfy { port(of: $0) == set.address.port })
        try set.grow(to: 2)
        #expect(set.descriptors.count == 3, "a queue is never closed")
    }

    @Test func socketsOfAnotherImageAreTakenOver() throws {
        let set = try ListenerSet(loopback, count: 2)
        let adopted = ListenerSet(wanted: set.wanted, adopting: set.descriptors.map { dup($0) })
        #expect(adopted.address == set.address)
        #expect(adopted.wanted == loopback)
    }

    @Test func aClosedSetTakesNoNewConnectionsUntilItIsOpenedAgain() throws {
        let set = try ListenerSet(loopback, count: 1)
        #expect(connects(to: set))
        set.close()
        #expect(!connects(to: set))
        set.reopen()
        #expect(connects(to: set))
    }

    @Test func aHandshakeThatHasBegunIsSeenUntilItIsOver() throws {
        for (ip, wanted) in [("127.0.0.1", loopback), ("127.0.0.1", .all(port: 0)), ("::1", .all(port: 0))] {
            let set = try ListenerSet(wanted, count: 2)
            #expect(set.hasOpenHandshakes() == false)
            let client = DeafClient(ip, port: set.address.port)
            #expect(set.hasOpenHandshakes() == true)
            client.hear()
            // The kernel sends its SYN-ACK again after a second.
            for _ in 0..<400 where set.hasOpenHandshakes() == true { usleep(10_000) }
            #expect(set.hasOpenHandshakes() == false)
        }
    }

    /// Begins a handshake and drops the answer, until it is told to hear.
    private final class DeafClient {
        private let descriptor: Int32

        init(_ ip: String, port: UInt16) {
            let address = SocketAddress(ip: ip, port: port)!
            let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
            descriptor = socket(address.family, type, 0)
            dropEverything()
            _ = unsafe address.withSockaddr { unsafe connect(descriptor, $0, $1) }
        }

        /// Attaches a socket filter of one instruction, "take 0 bytes of the packet" (struct sock_fprog: how many
        /// there are, and where).
        private func dropEverything() {
            var instruction: UInt64 = 0x06
            unsafe withUnsafePointer(to: &instruction) { place in
                var program: (UInt64, UInt) = (1, UInt(bitPattern: place))
                let result = unsafe setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &program, 16)
                #expect(result == 0)
            }
        }

        func hear() { _ = lb_keep_new_connections(descriptor) }

        deinit { close(descriptor) }
    }

    /// Whether a connection is there within 100 ms, which on the loopback is long.
    private func connects(to set: ListenerSet) -> Bool {
        let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        defer { close(client) }
        let address = SocketAddress(ip: "127.0.0.1", port: set.address.port)!
        _ = unsafe address.withSockaddr { unsafe connect(client, $0, $1) }
        var poll = pollfd(fd: client, events: Int16(POLLOUT), revents: 0)
        return unsafe Glibc.poll(&poll, 1, 100) == 1
    }

    /// As systemd opens it: without SO_REUSEPORT, so that a second socket of our own could not have the port.
    @Test func aSocketOfAServiceManagerIsEveryWorkersAndStaysTheOnlyOne() throws {
        let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let bound = unsafe SocketAddress(ip: "127.0.0.1", port: 0)!.withSockaddr { unsafe bind(raw, $0, $1) }
        try #require(bound == 0 && listen(raw, 16) == 0)
        let set = ListenerSet(wanted: .all(port: 8080), adopting: [raw], isInherited: true)
        try set.grow(to: 3)
        #expect((0..<3).map { set.descriptors(worker: $0, of: 3) } == [[raw], [raw], [raw]])
        #expect(set.wanted == .all(port: 8080) && set.address.port == port(of: raw))
    }

    @Test func aPortThatAnotherBalancerSharesIsInUse() throws {
        let first = try ListenerSet(loopback, count: 2)
        let error = #expect(throws: StartFailure.self) { try ListenerSet(first.address, count: 2) }
        #expect(error?.kind == .runTime)
        #expect(error?.message.contains("127.0.0.1:\(first.address.port)") == true)
        let warnings = try ListenerSet.probe(first.address)
        #expect(warnings.count == 1)
        #expect(warnings.first?.contains("127.0.0.1:\(first.address.port)") == true)
    }

    @Test func allAddressesIncludeThoseInUse() throws {
        let first = try ListenerSet(loopback, count: 1)
        #expect(throws: StartFailure.self) { try ListenerSet(.all(port: first.address.port), count: 1) }
    }

    @Test func aProbeLeavesThePortFree() throws {
        let address = try ListenerSet(loopback, count: 1).address
        #expect(try ListenerSet.probe(address) == [])
        #expect(try ListenerSet(address, count: 1).address == address)
    }

    @Test func anAddressOfAnotherMachineIsRefused() {
        let error = #expect(throws: StartFailure.self) {
            try ListenerSet(ListenAddress(ip: "192.0.2.1", port: 0), count: 1)
        }
        #expect(error?.message.contains("192.0.2.1") == true)
    }

    @Test(arguments: ["127.0.0.1", "::1", "[::1]"])
    func literalsAreListenAddresses(text: String) throws {
        #expect(ListenAddress(ip: try ListenAddress.parsedIP(text), port: 1) != .all(port: 1))
    }

    @Test(arguments: ["", "somewhere", "300.1.2.3", "127.0.0.1:80", "[::1", "*"])
    func otherTextIsNoListenAddress(text: String) {
        #expect(throws: BadValue.self) { try ListenAddress.parsedIP(text) }
    }
}
