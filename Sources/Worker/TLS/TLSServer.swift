import CShims
import Glibc

/// Everything that sessions with clients have in common: certificates, who gets which, tickets, protocols.
///
/// One context for each certificate, or for each pair of an ECDSA and an RSA certificate with the same names, between
/// which OpenSSL chooses by what the client can verify. Made by the master; a worker makes sessions from it.
/// Unsafe: OpenSSL's handles; each context has a pointer to this object, which owns the contexts and so outlives them,
/// and the callbacks in `TLSThunks` come back here.
@safe
public final class TLSServer: @unchecked Sendable {
    /// One certificate's place.
    private struct Place {
        let context: TLSContext
        /// Names in the certificate, sorted, for finding its twin of another key type.
        let names: [String]
        /// A certificate of each key type, with what is stapled to it.
        var leaves: [Leaf]
    }

    @safe
    private struct Leaf {
        let certificate: OpaquePointer
        let keyType: Int32
        var staple: [UInt8] = []
    }

    private var places: [Place] = []
    private let tickets: TicketKeys
    private let protocolList: [UInt8]
    /// Whether clients may, or must, show a certificate.
    let asksForCertificates: Bool
    /// Worth telling when it starts.
    public private(set) var warnings: [String] = []

    /// Reads every file that the settings name.
    /// - Parameter tickets: Shared by everybody who is to open the tickets.
    public init(_ settings: TLSServerSettings, tickets: TicketKeys) throws(TLSProblem) {
        precondition(!settings.certificates.isEmpty, "a TLS server without a certificate")
        self.tickets = tickets
        protocolList = ALPN.list(settings.protocols)
        asksForCertificates = settings.clientCAPath != nil
        for files in settings.certificates { try add(files) }
        for path in settings.staplePaths { try staple(path) }
        for place in places { try configure(place.context, settings) }
    }

    /// Names and first addresses of what is served, for people.
    public var certificateNames: [[String]] { places.map(\.names) }

    private func add(_ files: CertificateFiles) throws(TLSProblem) {
        let context = TLSContext(isServer: true)
        try context.use(files)
        guard let certificate = unsafe context.certificate else { preconditionFailure("no certificate after loading") }
        let leaf = unsafe Leaf(certificate: certificate, keyType: EVP_PKEY_get_base_id(X509_get0_pubkey(certificate)))
        warnIfInvalid(leaf, files)
        let names = unsafe CertificateNames.of(certificate)
        let twin = places.firstIndex { place in
            place.names == names && !place.leaves.contains { $0.keyType == leaf.keyType }
        }
        guard let twin else { return places.append(Place(context: context, names: names, leaves: [leaf])) }
        try places[twin].context.use(files)
        guard let own = unsafe places[twin].context.certificate else { preconditionFailure("no certificate") }
        unsafe places[twin].leaves.append(Leaf(certificate: own, keyType: leaf.keyType))
    }

    private func warnIfInvalid(_ leaf: Leaf, _ files: CertificateFiles) {
        switch unsafe lb_x509_validity(leaf.certificate) {
        case 1: warnings.append("the certificate \(files.certificatePath) has expired; clients will refuse it")
        case -1: warnings.append("the certificate \(files.certificatePath) is not valid yet; clients will refuse it")
        default: break
        }
    }

    private func staple(_ path: String) throws(TLSProblem) {
        let response = try FileBytes.read(path, what: "OCSP response")
        for index in places.indices {
            for leaf in places[index].leaves.indices {
                let verdict = unsafe lb_ocsp_check(
                    response, response.count, places[index].leaves[leaf].certificate)
                switch verdict {
                case 0: continue
                case 1: places[index].leaves[leaf].staple = response
                case -1:
                    throw TLSProblem("cannot use the OCSP response \(path): it is not one; it must be DER")
                case -2:
                    throw TLSProblem("cannot use the OCSP response \(path): it says that the certificate is not good")
                default: warnings.append("the OCSP response \(path) is too old and is not stapled")
                }
                return
            }
        }
        throw TLSProblem("cannot use the OCSP response \(path): it is about none of the certificates")
    }

    private func configure(_ context: TLSContext, _ settings: TLSServerSettings) throws(TLSProblem) {
        let handle = unsafe context.handle
        _ = unsafe lb_ssl_ctx_set_min_version(handle, settings.minVersion.number)
        if let ciphers = settings.ciphers { try context.use(ciphers: ciphers) }
        unsafe lb_ssl_ctx_keep_no_sessions(handle)
        // One ticket a handshake: a client that opens several connections at once may use it for all of them.
        _ = unsafe SSL_CTX_set_num_tickets(handle, 1)
        _ = unsafe SSL_CTX_set_timeout(handle, Int(TicketKeys.epochSeconds))
        let sessionContext = try Self.sessionContext(settings)
        _ = unsafe SSL_CTX_set_session_id_context(handle, sessionContext, UInt32(sessionContext.count))
        try askForCertificates(context, settings)
        // Not retained: this object owns the contexts.
        unsafe lb_ssl_ctx_set_owner(handle, Unmanaged.passUnretained(self).toOpaque())
        _ = unsafe SSL_CTX_set_tlsext_ticket_key_evp_cb(handle, TLSThunks.ticketKey)
        unsafe SSL_CTX_set_alpn_select_cb(handle, TLSThunks.selectProtocol, nil)
        if places.count > 1 { unsafe lb_ssl_ctx_set_name_callback(handle, TLSThunks.selectCertificate) }
        if places.contains(where: { $0.leaves.contains { !$0.staple.isEmpty } }) {
            unsafe lb_ssl_ctx_set_status_callback(handle, TLSThunks.staple)
        }
    }

    /// Sessions are resumed only where clients are asked the same: one of before a CA was given, or of another CA, must
    /// not pass for a client that has shown a certificate.
    private static func sessionContext(_ settings: TLSServerSettings) throws(TLSProblem) -> [UInt8] {
        guard let path = settings.clientCAPath else { return Array("load_balancer".utf8) }
        let asked = try FileBytes.read(path, what: "CA file") + [settings.requiresClientCertificate ? 1 : 0]
        var digest = [UInt8](repeating: 0, count: 32)
        var count: UInt32 = 32
        guard unsafe EVP_Digest(asked, asked.count, &digest, &count, EVP_sha256(), nil) == 1 else {
            preconditionFailure("SHA-256 fails: \(TLSErrors.take() ?? "")")
        }
        return digest
    }

    private func askForCertificates(_ context: TLSContext, _ settings: TLSServerSettings) throws(TLSProblem) {
        guard let path = settings.clientCAPath else { return }
        try context.trust(caPath: path)
        unsafe SSL_CTX_set_client_CA_list(context.handle, SSL_load_client_CA_file(path))
        let mode = SSL_VERIFY_PEER | (settings.requiresClientCertificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0)
        unsafe SSL_CTX_set_verify(context.handle, mode, nil)
    }

    /// A session for a client's connection.
    func session(descriptor: Int32) -> TLSSession {
        TLSSession(places[0].context, isServer: true, descriptor: descriptor, owner: self)
    }

    // MARK: What the callbacks ask

    /// The context for a name (RFC 6066 §3): a certificate that has it, then one with a wildcard for it.
    func context(named name: UnsafePointer<CChar>) -> OpaquePointer? {
        for flags in [UInt32(X509_CHECK_FLAG_NO_WILDCARDS), 0] {
            for place in places {
                let isMatch = place.leaves.contains { leaf in
                    unsafe X509_check_host(leaf.certificate, name, strlen(name), flags, nil) == 1
                }
                if isMatch { return unsafe place.context.handle }
            }
        }
        return nil
    }

    /// Where in the client's list the protocol stands that is preferred here, nil when none does.
    func chosenProtocol(_ offered: UnsafeBufferPointer<UInt8>) -> Range<Int>? {
        unsafe ALPN.choose(from: offered.span, by: protocolList)
    }

    /// The response to staple to the certificate that a session uses; empty without one, and when it has become too
    /// old: a client could take that for an attack.
    func staple(for certificate: OpaquePointer) -> [UInt8] {
        for place in places {
            for leaf in place.leaves where unsafe leaf.certificate == certificate {
                let isCurrent = unsafe lb_ocsp_check(leaf.staple, leaf.staple.count, certificate) == 1
                return isCurrent ? leaf.staple : []
            }
        }
        return []
    }

    /// Ticket keys of this moment.
    func currentTickets() -> TicketKeys {
        tickets.advance()
        return tickets
    }
}

/// The names that a certificate is for. Unsafe: OpenSSL calls back with each.
enum CertificateNames {
    /// Sorted, in lower case.
    static func of(_ certificate: OpaquePointer) -> [String] {
        var names: [String] = []
        unsafe withUnsafeMutablePointer(to: &names) { list in
            unsafe lb_x509_visit_names(
                certificate,
                { bytes, count, context in
                    guard let bytes = unsafe bytes, let context = unsafe context else { return }
                    let raw = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
                    let name = unsafe String(decoding: raw, as: UTF8.self)
                    unsafe context.assumingMemoryBound(to: [String].self).pointee.append(name.lowercased())
                }, list)
        }
        return names.sorted()
    }
}

/// The lists of protocols that TLS negotiates (RFC 7301 §3.1): each name behind its length.
enum ALPN {
    static func list(_ names: [String]) -> [UInt8] {
        names.flatMap { name in [UInt8(name.utf8.count)] + Array(name.utf8) }
    }

    /// Where in `offered` the first protocol of `preferred` that it has stands.
    static func choose(from offered: Span<UInt8>, by preferred: [UInt8]) -> Range<Int>? {
        var rest = preferred[...]
        while let length = rest.first {
            let name = rest.dropFirst().prefix(Int(length))
            if let range = find(name, in: offered) { return range }
            rest = rest.dropFirst(1 + Int(length))
        }
        return nil
    }

    private static func find(_ name: ArraySlice<UInt8>, in offered: Span<UInt8>) -> Range<Int>? {
        var index = 0
        while index < offered.count {
            let start = index + 1
            let end = start + Int(offered[index])
            guard end <= offered.count else { return nil }
            if end - start == name.count, zip(start..<end, name).allSatisfy({ offered[$0] == $1 }) {
                return start..<end
            }
            index = end
        }
        return nil
    }
}
