import Testing

@testable import Worker

/// Who accepts whom.
@Suite struct TLSVerificationTests {
    private func clientOutcome(
        _ server: TLSServer, _ client: TLSClient, name: String = "a.test", isAddress: Bool = false
    ) -> TLSSession.HandshakeOutcome {
        TLSPair(server, client, name: name, isAddress: isAddress).shakeHands().client
    }

    @Test func aCertificateOfAnotherHostIsRefused() throws {
        let outcome = clientOutcome(try TLSPair.server("a"), try TLSPair.client(), name: "other.test")
        #expect(outcome == .failed("certificate verify failed: hostname mismatch"))
    }

    @Test func anAddressIsLookedForAmongAddresses() throws {
        let server = try TLSPair.server("a")
        #expect(clientOutcome(server, try TLSPair.client(), name: "127.0.0.1", isAddress: true) == .done)
        let outcome = clientOutcome(server, try TLSPair.client(), name: "127.0.0.2", isAddress: true)
        #expect(outcome == .failed("certificate verify failed: IP address mismatch"))
    }

    /// OpenSSL would take the certificate of anybody whom the CA knows.
    @Test(arguments: [("127.0.0.1.9", true), ("", false), (String(repeating: "a", count: 300), false)])
    func aNameThatCannotBeCheckedIsRefused(name: String, isAddress: Bool) throws {
        let server = try TLSPair.server("a")
        let refused = TLSSession.HandshakeOutcome.failed("no certificate can be checked for the backend's name")
        #expect(clientOutcome(server, try TLSPair.client(), name: name, isAddress: isAddress) == refused)
        let careless = try TLSPair.client { $0.isVerifying = false }
        #expect(clientOutcome(server, careless, name: name, isAddress: isAddress) == .done)
    }

    @Test func aStrangersCertificateIsRefused() throws {
        let outcome = clientOutcome(try TLSPair.server("stranger"), try TLSPair.client())
        #expect(outcome == .failed("certificate verify failed: self-signed certificate"))
    }

    @Test func anExpiredCertificateIsRefusedByClientsAndToldAtStart() throws {
        let server = try TLSPair.server("expired")
        #expect(server.warnings.count == 1)
        #expect(server.warnings[0].contains("has expired"))
        #expect(
            clientOutcome(server, try TLSPair.client()) == .failed("certificate verify failed: certificate has expired")
        )
    }

    @Test func withoutChecksEverythingIsAccepted() throws {
        let client = try TLSPair.client { $0.isVerifying = false }
        #expect(client.warnings.count == 1)
        #expect(clientOutcome(try TLSPair.server("stranger"), client, name: "other.test") == .done)
    }

    @Test func aClientMayHaveToIntroduceItself() throws {
        let server = try TLSPair.server("a") { $0.clientCAPath = TestCertificates.shared.caPath }
        // In TLS 1.3 the client is done before the server has looked at what it sent.
        #expect(
            TLSPair(server, try TLSPair.client()).shakeHands().server == .failed("peer did not return a certificate"))
        let known = try TLSPair.client { $0.certificate = TestCertificates.shared.files("exact") }
        #expect(TLSPair(server, known).shakeHands() == (.done, .done))
        let stranger = try TLSPair.client { $0.certificate = TestCertificates.shared.files("stranger") }
        guard case .failed = TLSPair(server, stranger).shakeHands().server else {
            return #expect(Bool(false), "a stranger came in")
        }
    }

    @Test func anIntroductionMayBeOptional() throws {
        let server = try TLSPair.server("a") {
            $0.clientCAPath = TestCertificates.shared.caPath
            $0.requiresClientCertificate = false
        }
        #expect(TLSPair(server, try TLSPair.client()).shakeHands() == (.done, .done))
        let stranger = try TLSPair.client { $0.certificate = TestCertificates.shared.files("stranger") }
        guard case .failed = TLSPair(server, stranger).shakeHands().server else {
            return #expect(Bool(false), "a stranger came in")
        }
    }
}

/// Resumption by tickets.
@Suite struct TLSResumptionTests {
    /// Opens a session, lets the ticket arrive, and says whether it was a resumed one.
    private func connect(_ server: TLSServer, _ client: TLSClient, _ memory: SessionMemory) -> Bool {
        let pair = TLSPair(server, client, memory: memory)
        #expect(pair.shakeHands() == (.done, .done))
        _ = pair.server.send(from: .holding("x"), countMax: 1)
        _ = TLSPair.receive(pair.client)
        #expect(pair.client.isResumed == pair.server.isResumed)
        return pair.client.isResumed
    }

    @Test func theNextConnectionResumesTheSession() throws {
        let (server, client, memory) = (try TLSPair.server("a"), try TLSPair.client(), SessionMemory())
        #expect(!connect(server, client, memory))
        #expect(connect(server, client, memory))
        #expect(connect(server, client, memory))
        #expect(!connect(server, client, SessionMemory()))
    }

    /// Else a ticket of before a reload would do instead of a certificate.
    @Test func aSessionWithoutACertificateIsNotResumedWhereOneIsAskedFor() throws {
        let tickets = TicketKeys()
        let (client, memory) = (try TLSPair.client(), SessionMemory())
        #expect(!connect(try TLSPair.server("a", tickets: tickets), client, memory))
        let strict = try TLSPair.server("a", tickets: tickets) { $0.clientCAPath = TestCertificates.shared.caPath }
        let outcome = TLSPair(strict, client, memory: memory).shakeHands().server
        #expect(outcome == .failed("peer did not return a certificate"))
        let lenient = try TLSPair.server("a", tickets: tickets) {
            $0.clientCAPath = TestCertificates.shared.caPath
            $0.requiresClientCertificate = false
        }
        #expect(!connect(lenient, client, memory))
        #expect(connect(lenient, client, memory))
    }

    @Test func whoeverHasTheKeysResumes() throws {
        let tickets = TicketKeys()
        let (client, memory) = (try TLSPair.client(), SessionMemory())
        #expect(!connect(try TLSPair.server("a", tickets: tickets), client, memory))
        #expect(connect(try TLSPair.server("a", tickets: tickets), client, memory))
        #expect(!connect(try TLSPair.server("a"), client, memory), "other keys")
    }
}
