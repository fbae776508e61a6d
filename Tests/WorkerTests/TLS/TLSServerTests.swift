import Testing

@testable import Worker

/// Which certificate a client gets, and what is wrong with files.
@Suite struct TLSServerTests {
    private let certificates = TestCertificates.shared

    /// The names in the certificate that a client gets which asks for `name`; nil when it does not fit.
    private func isServed(_ server: TLSServer, _ name: String) throws -> Bool {
        TLSPair(server, try TLSPair.client(), name: name).shakeHands().client == .done
    }

    @Test func theCertificateIsChosenByName() throws {
        let server = try TLSPair.server("a", "wild", "exact", "common")
        for name in ["a.test", "b.test", "y.b.test", "X.b.test", "common.test"] {
            #expect(try isServed(server, name), "\(name)")
        }
        #expect(try !isServed(server, "z.y.b.test"), "a wildcard is one label")
        #expect(try !isServed(server, "unknown.test"))
    }

    @Test func anExactNameComesBeforeAWildcard() throws {
        let server = try TLSPair.server("wild", "exact")
        #expect(server.certificateNames == [["*.b.test", "b.test"], ["x.b.test"]])
        let context = unsafe server.context(named: "x.b.test")
        #expect(unsafe context != server.context(named: "y.b.test"))
    }

    /// The client trusts one of two and asks for a third: what it complains of says which of them it got.
    @Test func theFirstIsForThoseWhoAskForAnother() throws {
        let client = try TLSPair.client { $0.caPath = certificates.path("stranger.pem") }
        let complaint = { (server: TLSServer) in TLSPair(server, client, name: "unknown.test").shakeHands().client }
        #expect(
            complaint(try TLSPair.server("stranger", "a")) == .failed("certificate verify failed: hostname mismatch"))
        #expect(
            complaint(try TLSPair.server("a", "stranger"))
                == .failed("certificate verify failed: unable to get local issuer certificate"))
    }

    @Test func certificatesOfTheSameNamesStandForOneAnother() throws {
        #expect(try TLSPair.server("a", "a-rsa").certificateNames == [["a.test"]])
        #expect(try TLSPair.server("a", "wild").certificateNames.count == 2)
        #expect(try TLSPair.server("a", "a").certificateNames.count == 2, "the same kind of key adds nothing")
    }

    /// The client would rather have 128 bits.
    @Test func ciphersAreThoseThatWereGiven() throws {
        let server = try TLSPair.server("a") {
            $0.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384:TLS_AES_256_GCM_SHA384"
        }
        let pair = TLSPair(server, try TLSPair.client())
        #expect(pair.shakeHands() == (.done, .done))
        #expect(pair.client.cipher == "TLS_AES_256_GCM_SHA384")
    }

    @Test func nothingInCommonInALPNIsAnError() throws {
        let outcome = TLSPair(try TLSPair.server("a"), try TLSPair.client { $0.protocols = ["other"] }).shakeHands()
        #expect(outcome.server == .failed("no application protocol"))
    }

    @Test func aClientWithoutALPNIsServed() throws {
        let pair = TLSPair(try TLSPair.server("a"), try TLSPair.client { $0.protocols = [] })
        #expect(pair.shakeHands() == (.done, .done))
        #expect(pair.server.applicationProtocol == "")
    }

    private func problem(_ make: () throws -> Void) -> String {
        do {
            try make()
            return "no problem"
        } catch {
            return "\(error)"
        }
    }

    @Test func aMissingFileIsNamed() {
        let text = problem { _ = try TLSPair.server("missing") }
        #expect(
            text.hasPrefix("cannot use the certificate \(certificates.path("missing.pem")): No such file or directory"))
    }

    @Test func aKeyThatDoesNotBelongIsNamed() {
        let files = CertificateFiles(
            certificatePath: certificates.path("a.pem"), keyPath: certificates.path("wild.key"))
        let text = problem { _ = try TLSServer(TLSServerSettings(certificates: [files]), tickets: TicketKeys()) }
        #expect(text.hasPrefix("the key \(files.keyPath) does not belong to the certificate \(files.certificatePath)"))
    }

    @Test func aKeyWithAPasswordIsNamed() {
        let files = CertificateFiles(
            certificatePath: certificates.path("a-rsa.pem"), keyPath: certificates.path("locked.key"))
        let text = problem { _ = try TLSServer(TLSServerSettings(certificates: [files]), tickets: TicketKeys()) }
        #expect(text.hasPrefix("cannot use the key \(files.keyPath)"))
        #expect(text.hasSuffix("it must be a private key in PEM without a password"))
    }

    @Test func aFileThatIsNoCertificateIsNamed() {
        let files = CertificateFiles(certificatePath: certificates.path("a.key"), keyPath: certificates.path("a.key"))
        let text = problem { _ = try TLSServer(TLSServerSettings(certificates: [files]), tickets: TicketKeys()) }
        #expect(text.hasPrefix("cannot use the certificate \(files.certificatePath): no start line"))
    }

    @Test func unknownCiphersAreNamed() {
        let text = problem { _ = try TLSPair.server("a") { $0.ciphers = "NONSENSE" } }
        #expect(text.hasPrefix("cannot use the ciphers NONSENSE: no cipher match"))
    }

    @Test func aCAFileThatIsNoneIsNamed() {
        let text = problem { _ = try TLSPair.server("a") { $0.clientCAPath = certificates.path("a.key") } }
        #expect(text.hasPrefix("cannot use the CA file \(certificates.path("a.key"))"))
    }

    @Test func aStapleThatIsNoneIsNamed() {
        let text = problem { _ = try TLSPair.server("a") { $0.staplePaths = [certificates.path("a.key")] } }
        #expect(text.hasPrefix("cannot use the OCSP response \(certificates.path("a.key")): it is not one"))
    }

    @Test func protocolsAreChosenByOurPreference() {
        let offered = ALPN.list(["http/1.1", "h2", "x"])
        #expect(ALPN.choose(from: offered.span, by: ALPN.list(["h2", "http/1.1"])) == 10..<12)
        #expect(ALPN.choose(from: offered.span, by: ALPN.list(["http/1.1", "h2"])) == 1..<9)
        #expect(ALPN.choose(from: offered.span, by: ALPN.list(["h3"])) == nil)
        #expect(ALPN.choose(from: [9, 1].span, by: ALPN.list(["h2"])) == nil, "a length over the end")
    }
}
