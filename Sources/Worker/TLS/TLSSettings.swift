import CShims

/// The oldest version of TLS that is spoken.
public enum TLSVersion: String, CaseIterable, Sendable {
    case tls12 = "1.2"
    case tls13 = "1.3"

    var number: Int32 {
        switch self {
        case .tls12: TLS1_2_VERSION
        case .tls13: TLS1_3_VERSION
        }
    }
}

/// A certificate with its chain, and its private key, both PEM.
public struct CertificateFiles: Equatable, Sendable {
    public var certificatePath: String
    public var keyPath: String

    public init(certificatePath: String, keyPath: String) {
        self.certificatePath = certificatePath
        self.keyPath = keyPath
    }
}

/// How clients are spoken to.
public struct TLSServerSettings: Equatable, Sendable {
    /// What clients may ask for by name; the first is for those that ask for none, or for another.
    public var certificates: [CertificateFiles]
    public var minVersion = TLSVersion.tls12
    /// OpenSSL's names, TLS 1.2 and 1.3 mixed, joined by colons; nil for the defaults.
    public var ciphers: String?
    /// Who signs clients' certificates; nil: none is asked for.
    public var clientCAPath: String?
    /// A client without a certificate is refused.
    public var requiresClientCertificate = true
    /// OCSP responses, DER, in any order.
    public var staplePaths: [String] = []
    /// Protocols by preference, as ALPN names them (RFC 7301). What a client then speaks shows in its first bytes.
    public var protocols = ["h2", "http/1.1"]

    public init(certificates: [CertificateFiles]) {
        self.certificates = certificates
    }
}

/// How backends are spoken to.
public struct TLSClientSettings: Equatable, Sendable {
    /// Who signs backends' certificates; nil: the system's list.
    public var caPath: String?
    /// What backends that ask for a certificate get.
    public var certificate: CertificateFiles?
    /// Whether chain and name of a backend's certificate are checked.
    public var isVerifying = true
    /// Protocols by preference.
    public var protocols = ["h2", "http/1.1"]

    public init() {}
}

/// Why certificates, keys or the rest of the settings cannot be used.
public struct TLSProblem: Error, Equatable, CustomStringConvertible {
    /// What was tried, on which file, what is wrong and what to do.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}
