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
        let descriptors = (0..<3).flatMap { set.descriptors(worker: $0) }
        #expect(Set(descriptors).count == 3)
        #expect(set.address.port > 0)
        #expect(descriptors.allSatisfy { port(of: $0) == set.address.port })
    }

    @Test func socketsNeitherBlockNorSurviveExec() throws {
        let set = try ListenerSet(loopback, count: 1)
        let descriptor = set.descriptors(worker: 0)[0]
        #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test func aPortThatAnotherBalancerSharesIsInUse() throws {
        let first = try ListenerSet(loopback, count: 2)
        let error = #expect(throws: StartFailure.self) { try ListenerSet(first.address, count: 2) }
        #expect(error?.kind == .runTime)
        #expect(error?.message.contains("127.0.0.1:\(first.address.port)") == true)
        #expect(throws: StartFailure.self) { try ListenerSet.probe(first.address) }
    }

    @Test func allAddressesIncludeThoseInUse() throws {
        let first = try ListenerSet(loopback, count: 1)
        #expect(throws: StartFailure.self) { try ListenerSet(.all(port: first.address.port), count: 1) }
    }

    @Test func aProbeLeavesThePortFree() throws {
        let address = try ListenerSet(loopback, count: 1).address
        try ListenerSet.probe(address)
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
