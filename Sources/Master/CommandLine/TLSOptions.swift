import ArgumentParser
import Worker

/// Whether a client has to show a certificate.
enum ClientVerification: String, Choice {
    case required, optional
}

/// TLS towards clients.
struct TLSOptions: ParsableArguments {
    @Option(
        count: 0...65535, "Port for HTTPS, beside --port; without --port it is the only one. 0 takes a free one")
    var tlsPort: Int?

    @Option(
        help: ArgumentHelp(
            "A certificate with its chain, PEM. Repeatable; clients get the one with the name they ask for, or the first",
            valueName: "file"))
    var tlsCert: [String] = []

    @Option(help: ArgumentHelp("Its private key, PEM: one for each --tls-cert, in the same order", valueName: "file"))
    var tlsKey: [String] = []

    @Option(choice: "Oldest version that clients may speak")
    var tlsMinVersion = TLSVersion.tls12

    @Option(
        help: ArgumentHelp(
            "Ciphers for clients as OpenSSL names them, joined by colons (default: ECDHE with AES-GCM or ChaCha20)",
            valueName: "list"))
    var tlsCiphers: String?

    @Option(
        help: ArgumentHelp("Ask clients for a certificate that one of these CAs signed, PEM", valueName: "file"))
    var clientCa: String?

    @Option(choice: "Whether clients must have a certificate, with --client-ca")
    var clientVerify = ClientVerification.required

    @Option(
        help: ArgumentHelp(
            "An OCSP response to staple to the certificate it is about, DER. Repeatable.", valueName: "file"))
    var tlsOcsp: [String] = []

    @Option("How long a client's TLS handshake may take")
    var tlsHandshakeTimeout = WorkerConfiguration.Timeouts().handshakeNs
}

/// TLS towards backends.
struct UpstreamTLSOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "CAs that sign certificates of backends, PEM (default: the system's)", valueName: "file"))
    var upstreamCa: String?

    @Option(
        help: ArgumentHelp("A certificate to show to backends that ask for one, PEM", valueName: "file"))
    var upstreamCert: String?

    @Option(help: ArgumentHelp("Its private key, PEM", valueName: "file"))
    var upstreamKey: String?

    @Option(
        help: ArgumentHelp(
            "What is offered to https backends, by preference: h2, http/1.1 or both (default: \(UpstreamALPN.text))",
            valueName: "list"),
        transform: UpstreamALPN.parsed)
    var upstreamAlpn = UpstreamALPN.protocols

    var alpnText: String { upstreamAlpn.joined(separator: ",") }

    @Flag(
        name: [.customShort("k"), .long], inversion: .prefixedNo,
        help: "Do not check certificates of backends.")
    var insecure = false
}

/// `--upstream-alpn`: names of protocols, joined by commas.
enum UpstreamALPN {
    static let protocols = TLSClientSettings().protocols
    static var text: String { protocols.joined(separator: ",") }

    @Sendable static func parsed(_ text: String) throws(BadValue) -> [String] {
        let names = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard Set(names).count == names.count, names.allSatisfy({ Self.protocols.contains($0) }) else {
            throw BadValue("write h2,http/1.1, or one of the two")
        }
        return names
    }
}
