import ShmRing
import Testing

@testable import Worker

@Suite struct PeerNameTests {
    private func text(_ peer: PeerName) -> String {
        let ip = peer.ip
        return String(decoding: ip.indices.map { ip[$0] }, as: UTF8.self)
    }

    @Test(arguments: [
        ("192.0.2.7", "192.0.2.7", false), ("2001:db8::1", "2001:db8::1", true),
        ("::ffff:192.0.2.7", "192.0.2.7", false),
        ("2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:6666", true),
    ])
    func anAddressIsNamedAsPeopleWriteIt(ip: String, name: String, isIPv6: Bool) throws {
        let peer = PeerName(try #require(SocketAddress(ip: ip, port: 50123)))
        #expect(text(peer) == name)
        #expect(peer.port == 50123)
        #expect(peer.isIPv6 == isIPv6)
    }

    @Test func aUnixClientHasNoAddress() throws {
        let peer = PeerName(
            try #require(SocketAddress(unixPath: "/run/some/long/path/\(String(repeating: "x", count: 60))")))
        #expect(text(peer) == "unix:")
        #expect(!peer.isIPv6)
    }
}
