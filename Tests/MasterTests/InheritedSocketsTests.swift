import CShims
import Glibc
import ShmRing
import Testing

@testable import Master

@Suite struct InheritedSocketsTests {
    /// Like the descriptors a service manager leaves: without flags.
    private func socket(type: Int32 = Int32(SOCK_STREAM.rawValue), listens: Bool = true) throws -> FileDescriptor {
        let raw = Glibc.socket(AF_INET, type, 0)
        let address = try #require(SocketAddress(ip: "127.0.0.1", port: 0))
        let bound = unsafe address.withSockaddr { unsafe bind(raw, $0, $1) }
        try #require(bound == 0)
        if listens { try #require(listen(raw, 16) == 0) }
        return FileDescriptor(owning: raw)
    }

    private func taken(_ socket: borrowing FileDescriptor, count: String = "1") throws -> InheritedSockets? {
        try InheritedSockets(
            environment: ["LISTEN_PID": "7", "LISTEN_FDS": count], processID: 7, first: socket.rawValue)
    }

    @Test func aListeningSocketIsTakenOver() throws {
        let socket = try socket()
        let sockets = try #require(try taken(socket))
        #expect(sockets.descriptors == [socket.rawValue])
        #expect(sockets.address.ip == "127.0.0.1" && sockets.address.port != 0)
        #expect(fcntl(socket.rawValue, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(socket.rawValue, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test(
        arguments: [
            [:], ["LISTEN_FDS": "1"], ["LISTEN_PID": "7"], ["LISTEN_PID": "8", "LISTEN_FDS": "1"],
            ["LISTEN_PID": "7", "LISTEN_FDS": "0"], ["LISTEN_PID": "7", "LISTEN_FDS": "-1"],
        ])
    func socketsForNobodyOrForSomebodyElseAreLeft(environment: [String: String]) throws {
        #expect(try InheritedSockets(environment: environment, processID: 7) == nil)
    }

    @Test func socketsGoWhereTheirNamesSay() throws {
        let socket = try socket()
        let first = FileDescriptor(owning: fcntl(socket.rawValue, F_DUPFD, 900))
        let second = FileDescriptor(owning: dup2(socket.rawValue, first.rawValue + 1))
        func places(_ names: String?, tls: ListenAddress?) throws -> [[Int32]] {
            var environment = ["LISTEN_PID": "7", "LISTEN_FDS": "2"]
            environment["LISTEN_FDNAMES"] = names
            let sockets = try InheritedSockets(environment: environment, processID: 7, first: first.rawValue)
            return try #require(sockets).places(plain: .all(port: 80), tls: tls).map { $0.1 }
        }
        let both = [first.rawValue, second.rawValue]
        #expect(try places("http:https", tls: .all(port: 443)) == [[both[0]], [both[1]]])
        #expect(try places("https:https", tls: .all(port: 443)) == [both])
        #expect(try places(nil, tls: .all(port: 443)) == [both])
        #expect(try places("https", tls: .all(port: 443)) == [both], "as many names as sockets, or none")
        #expect(try places("http:https", tls: .all(port: 80)) == [both])
        #expect(try places("a:b", tls: nil) == [both])
        #expect(throws: StartFailure.self) { try places("a:https", tls: nil) }
    }

    @Test(arguments: [Int32(SOCK_STREAM.rawValue), Int32(SOCK_DGRAM.rawValue)])
    func whatDoesNotListenForTCPIsRefused(type: Int32) throws {
        let socket = try socket(type: type, listens: false)
        let error = #expect(throws: StartFailure.self) { try taken(socket) }
        #expect(error?.message.contains("\(socket.rawValue)") == true)
    }

    @Test func aDescriptorThatIsNoSocketIsRefused() throws {
        let file = FileDescriptor(owning: unsafe open("/dev/null", O_RDONLY))
        #expect(throws: StartFailure.self) { try taken(file) }
        #expect(throws: StartFailure.self) { try taken(file, count: "65") }
    }
}
