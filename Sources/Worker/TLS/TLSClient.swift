import CShims
import Glibc

/// Everything that sessions with backends have in common: whom to trust, how to introduce oneself.
/// Made by the master. Unsafe: OpenSSL's handles.
@safe
public final class TLSClient: @unchecked Sendable {
    private let context: TLSContext
    /// Backends may be spoken to in HTTP/1.1.
    let offersHTTP1: Bool
    /// Worth telling when it starts.
    public private(set) var warnings: [String] = []

    /// Reads every file that the settings name.
    public init(_ settings: TLSClientSettings) throws(TLSProblem) {
        context = TLSContext(isServer: false)
        offersHTTP1 = settings.protocols.isEmpty || settings.protocols.contains("http/1.1")
        let handle = unsafe context.handle
        if let files = settings.certificate { try context.use(files) }
        if settings.isVerifying {
            try trust(settings.caPath)
            unsafe SSL_CTX_set_verify(handle, SSL_VERIFY_PEER, nil)
        } else {
            warnings.append("--insecure: certificates of backends are not checked; anybody in between can read along")
        }
        unsafe lb_ssl_ctx_hand_out_sessions(handle)
        unsafe SSL_CTX_sess_set_new_cb(handle, TLSThunks.newSession)
        let protocols = ALPN.list(settings.protocols)
        if !protocols.isEmpty {
            _ = unsafe SSL_CTX_set_alpn_protos(handle, protocols, UInt32(protocols.count))
        }
    }

    private func trust(_ caPath: String?) throws(TLSProblem) {
        if let caPath { return try context.trust(caPath: caPath) }
        _ = unsafe SSL_CTX_set_default_verify_paths(context.handle)
        let file = unsafe String(cString: X509_get_default_cert_file())
        let directory = unsafe String(cString: X509_get_default_cert_dir())
        guard unsafe access(file, R_OK) != 0, unsafe access(directory, R_OK) != 0 else { return }
        warnings.append("the system has no list of CAs (\(directory)); install ca-certificates or give --upstream-ca")
    }

    /// A session for a connection to a backend.
    /// - Parameters:
    ///   - name: The host's name or literal address, which the certificate must have.
    ///   - memory: Where the backend's last session is, and the next is to go.
    func session(descriptor: Int32, name: String, isAddress: Bool, memory: SessionMemory) -> TLSSession {
        let session = TLSSession(context, isServer: false, descriptor: descriptor, owner: self)
        session.expect(name: name, isAddress: isAddress, memory: memory)
        return session
    }
}

/// The last session with one backend, to be resumed by the next connection. Unsafe: owns OpenSSL's session.
@safe
final class SessionMemory {
    private var session: OpaquePointer?

    deinit {
        unsafe SSL_SESSION_free(session)
    }

    /// Takes over a session that OpenSSL gave away.
    func keep(_ fresh: OpaquePointer) {
        unsafe SSL_SESSION_free(session)
        unsafe session = fresh
    }

    /// Offers what is kept, if it can still be resumed.
    func offer(to ssl: OpaquePointer) {
        guard let kept = unsafe session, unsafe SSL_SESSION_is_resumable(kept) == 1 else { return }
        _ = unsafe SSL_set_session(ssl, kept)
    }
}
