import CShims
import Glibc
import Testing

@testable import ShmRing

@Suite struct SocketAddressTests {
    @Test(arguments: [
        ("127.0.0.1", 80, "127.0.0.1:80"), ("255.255.255.255", 65535, "255.255.255.255:65535"),
        ("::1", 8080, "[::1]:8080"),
        ("2001:DB8:0:0::1", 0, "[2001:db8::1]:0"), ("::ffff:192.0.2.1", 9, "192.0.2.1:9"), ("::", 1, "[::]:1"),
    ])
    func anIPAddressHasOneText(ip: String, port: UInt16, text: String) {
        let address = SocketAddress(ip: ip, port: port)
        #expect(address?.description == text)
        #expect(address?.port == port)
        #expect(address?.family == (ip.contains(":") ? AF_INET6 : AF_INET))
    }

    @Test(arguments: [
        "", "localhost", "127.0.0.1:80", "[::1]", "256.0.0.1", "1.2.3", "127.0.0.01x", "::1%lo", "1::2::3",
        "0x7f.1",
    ])
    func anythingElseIsNoIPAddress(ip: String) {
        #expect(SocketAddress(ip: ip, port: 80) == nil)
    }

    @Test func aMappedAddressIsTheIPv4AddressItIs() {
        #expect(SocketAddress(ip: "::ffff:192.0.2.1", port: 9) == SocketAddress(ip: "192.0.2.1", port: 9))
        #expect(SocketAddress(ip: "::ffff:192.0.2.1", port: 9)?.ip == "192.0.2.1")
    }

    @Test func addressesDifferByHostAndPort() {
        let address = SocketAddress(ip: "127.0.0.1", port: 80)
        #expect(address == SocketAddress(ip: "127.0.0.1", port: 80))
        #expect(address != SocketAddress(ip: "127.0.0.1", port: 81))
        #expect(address != SocketAddress(ip: "127.0.0.2", port: 80))
    }

    @Test func aUnixPathMayHave107Bytes() {
        let longest = "/" + String(repeating: "x", count: 106)
        #expect(SocketAddress(unixPath: longest)?.description == "unix:\(longest)")
        #expect(SocketAddress(unixPath: longest + "x") == nil)
        #expect(SocketAddress(unixPath: "") == nil)
        #expect(SocketAddress(unixPath: "/a\0b") == nil)
        #expect(SocketAddress(unixPath: "/run/a")?.port == nil)
        #expect(SocketAddress(unixPath: "/run/a")?.family == AF_UNIX)
    }

    @Test(arguments: ["127.0.0.1", "::1"])
    func theKernelTakesItAndGivesItBack(ip: String) throws {
        let address = SocketAddress(ip: ip, port: 0)!
        let fd = FileDescriptor(owning: socket(address.family, Int32(SOCK_STREAM.rawValue), 0))
        let bound = unsafe address.withSockaddr { unsafe bind(fd.rawValue, $0, $1) }
        try #require(bound == 0, "bind: \(Errno.last)")
        let raw = fd.rawValue
        let named = unsafe SocketAddress { unsafe getsockname(raw, $0, $1) }
        #expect(named.ip == ip)
        #expect(named.port != 0)
        let copied = unsafe named.withSockaddr { unsafe SocketAddress($0, length: $1) }
        #expect(copied == named)
    }

    @Test func theKernelTakesAUnixPathAndGivesItBack() throws {
        let address = SocketAddress(unixPath: "/tmp/socket-address-\(getpid())-\(UInt64.random(in: 0 ... .max))")!
        let fd = FileDescriptor(owning: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
        let bound = unsafe address.withSockaddr { unsafe bind(fd.rawValue, $0, $1) }
        try #require(bound == 0, "bind: \(Errno.last)")
        defer { unsafe unlink(address.ip) }
        let raw = fd.rawValue
        let named = unsafe SocketAddress { unsafe getsockname(raw, $0, $1) }
        #expect(named == address)
    }

    @Test func anUnnamedUnixSocketHasAnEmptyPath() throws {
        let fd = FileDescriptor(owning: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
        let raw = fd.rawValue
        let named = unsafe SocketAddress { unsafe getsockname(raw, $0, $1) }
        #expect(named.description == "unix:")
    }

    @Test func theKernelTakesAnAbstractName() throws {
        let name = "socket-address-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let address = try #require(SocketAddress(abstractName: name))
        let fd = FileDescriptor(owning: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
        let bound = unsafe address.withSockaddr { unsafe bind(fd.rawValue, $0, $1) }
        try #require(bound == 0, "bind: \(Errno.last)")
        #expect(String(decoding: contents(of: "/proc/net/unix"), as: UTF8.self).contains("@\(name)\n"))
    }

    private func contents(of path: String) -> [UInt8] {
        let file = FileDescriptor(owning: unsafe open(path, O_RDONLY))
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while case let count = unsafe read(file.rawValue, &chunk, chunk.count), count > 0 {
            bytes += chunk.prefix(count)
        }
        return bytes
    }

    @Test(arguments: ["", String(repeating: "x", count: 108)])
    func abstractNamesMustFit(name: String) {
        #expect(SocketAddress(abstractName: name) == nil)
    }
}
