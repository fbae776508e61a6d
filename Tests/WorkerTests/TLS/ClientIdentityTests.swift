import Testing

@testable import Worker

/// What a client's certificate says of it, and how backends are told.
@Suite struct ClientIdentityTests {
    private func pair(showing name: String?) throws -> TLSPair {
        let server = try TLSPair.server("a") {
            $0.clientCAPath = TestCertificates.shared.caPath
            $0.requiresClientCertificate = false
        }
        #expect(server.asksForCertificates)
        let client = try TLSPair.client { $0.certificate = name.map { TestCertificates.shared.files($0) } }
        let pair = TLSPair(server, client)
        #expect(pair.shakeHands() == (.done, .done))
        return pair
    }

    @Test func itIsTheSubjectAndTheFingerprint() throws {
        let pair = try pair(showing: "exact")
        let identity = try #require(pair.server.clientIdentity)
        #expect(String(decoding: identity.subject, as: UTF8.self) == "CN=exact")
        #expect(identity.fingerprint.count == 32)
        #expect(identity.fingerprint != [UInt8](repeating: 0, count: 32))
    }

    @Test func withoutACertificateThereIsNone() throws {
        #expect(try pair(showing: nil).server.clientIdentity == nil)
        #expect(try !TLSPair.server("a").asksForCertificates)
    }

    @Test func linesAreWrittenOut() {
        let identity = ClientIdentity(subject: Array("CN=x".utf8), fingerprint: [0x0A, 0xFF])
        #expect(
            String(decoding: identity.fieldLines, as: UTF8.self)
                == "X-SSL-Client-Verify: SUCCESS\r\nX-SSL-Client-S-DN: CN=x\r\nX-SSL-Client-Fingerprint: 0aff\r\n")
        let nameless = ClientIdentity(subject: [], fingerprint: [0x0A])
        #expect(
            String(decoding: nameless.fieldLines, as: UTF8.self)
                == "X-SSL-Client-Verify: SUCCESS\r\nX-SSL-Client-Fingerprint: 0a\r\n")
    }

    @Test(arguments: [
        "X-SSL-Client-Verify", "x_ssl_client_verify", "X-SSL-Client-S-DN", "x-ssl-client_s-dn",
        "X-SSL-Client-Fingerprint",
    ])
    func namesAreRecognisedInAnySpelling(name: String) {
        let bytes = Array(name.utf8)
        #expect(KnownField.named(bytes.span) == .clientCertificate)
    }

    @Test(arguments: ["X-SSL-Client-Verifx", "X-SSL-Client-S-DX", "X-Forwarded-Proto", "Y-SSL-Client-Verify"])
    func otherNamesAreNot(name: String) {
        let bytes = Array(name.utf8)
        #expect(KnownField.named(bytes.span) != .clientCertificate)
    }
}
