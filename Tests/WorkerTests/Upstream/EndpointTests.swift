import ShmRing
import Testing

@testable import Worker

@Suite struct EndpointTests {
    private func endpoint(_ name: String, hostname: String? = nil, _ addresses: [SocketAddress]) -> Endpoint {
        let backend = WorkerConfiguration.Backend(name: name, hostname: hostname, addresses: addresses)
        return Endpoint(index: 4, backend, health: HealthState(), pool: PoolState())
    }

    private func ips(_ texts: String...) throws -> [SocketAddress] {
        try texts.map { try #require(SocketAddress(ip: $0, port: 80)) }
    }

    @Test func theNextConnectionTriesAnotherAddressAfterAFailure() throws {
        let endpoint = endpoint("a.test:80", hostname: "a.test", try ips("192.0.2.1", "192.0.2.2", "192.0.2.3"))
        var tried: [Int] = []
        for _ in 0..<4 {
            tried.append(endpoint.addressIndex)
            endpoint.addressFailed(endpoint.addressIndex)
        }
        #expect(tried == [0, 1, 2, 0])
    }

    @Test func connectionsThatFailTogetherMoveOnOnce() throws {
        let endpoint = endpoint("a.test:80", hostname: "a.test", try ips("192.0.2.1", "192.0.2.2", "192.0.2.3"))
        for _ in 0..<3 { endpoint.addressFailed(0) }
        #expect(endpoint.addressIndex == 1)
    }

    @Test func aLateFailureOfAnotherAddressChangesNothing() throws {
        let endpoint = endpoint("a.test:80", hostname: "a.test", try ips("192.0.2.1", "192.0.2.2"))
        endpoint.addressFailed(1)
        #expect(endpoint.addressIndex == 0)
    }

    @Test func theOnlyAddressIsTriedAgain() throws {
        let endpoint = endpoint("192.0.2.1:80", try ips("192.0.2.1"))
        endpoint.addressFailed(0)
        #expect(endpoint.addressIndex == 0)
    }

    @Test func aNamedBackendIsCalledByItsName() throws {
        let endpoint = endpoint("a.test:80", hostname: "a.test", try ips("192.0.2.1", "2001:db8::1"))
        #expect(endpoint.host == "a.test")
        #expect(endpoint.hostField == "a.test:80")
        #expect(endpoint.port == 80)
        #expect(endpoint.addressTexts == ["192.0.2.1", "2001:db8::1"])
    }

    @Test func aLiteralBackendIsCalledByItsAddress() throws {
        #expect(endpoint("[2001:db8::1]:80", try ips("2001:db8::1")).host == "2001:db8::1")
    }

    @Test func aUnixSocketHasNoPort() throws {
        let endpoint = endpoint("unix:/run/a", [try #require(SocketAddress(unixPath: "/run/a"))])
        #expect(endpoint.port == nil)
        #expect(endpoint.host == "/run/a")
        #expect(endpoint.hostField == "localhost", "a path is no host (RFC 9110 §7.2)")
    }

    @Test func backendThatWantsHTTP1GetsItForAWhile() throws {
        var backend = WorkerConfiguration.Backend(name: "a", hostname: nil, addresses: try ips("192.0.2.1"))
        backend.isHTTP2 = true
        let endpoint = Endpoint(index: 0, backend, health: HealthState(), pool: PoolState())
        #expect(endpoint.takesHTTP2(nowNs: 10))
        let isNews = endpoint.http1Required(nowNs: 10, pauseNs: 1000)
        let isNewsAgain = endpoint.http1Required(nowNs: 20, pauseNs: 1000)
        #expect(isNews && !isNewsAgain)
        #expect(!endpoint.takesHTTP2(nowNs: 1019))
        #expect(endpoint.takesHTTP2(nowNs: 1020))
    }
}
