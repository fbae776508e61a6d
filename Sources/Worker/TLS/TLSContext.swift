import CShims
import Glibc

/// Owns one of OpenSSL's contexts: the settings that sessions are made from. Made by the master before it forks, so
/// that what is wrong with a file is found there; workers only read it.
/// Unsafe: OpenSSL's handles. Safe to use: the handle lives as long as the object, and sessions keep their own
/// reference to it.
@safe
final class TLSContext {
    let handle: OpaquePointer
    /// Where a session joins what is to share a record; empty in between.
    let scratch = ByteBuffer(capacity: TLSSession.recordBytesMax)

    /// Certificates between a peer's and one that is trusted.
    private static let chainMax: Int32 = 9

    /// Where a session gathers records; empty in between. What is sent in one call fits, with what TLS adds to it.
    let records = ByteBuffer(capacity: BufferPool.Size.large.rawValue + 4096)

    private static let sharedGroups = "X25519:P-256:P-384"
    /// OpenSSL's own three, the cheapest first.
    private static let ciphers13 = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    /// TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 §4.2).
    private static let ciphers12 =
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
        + "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

    init(isServer: Bool) {
        guard let context = unsafe SSL_CTX_new(isServer ? TLS_server_method() : TLS_client_method()) else {
            preconditionFailure("OpenSSL makes no context: \(TLSErrors.take() ?? "")")
        }
        unsafe handle = context
        unsafe lb_ssl_ctx_set_modes(handle)
        unsafe SSL_CTX_set_options(handle, isServer ? lb_ssl_options_server : lb_ssl_options_common)
        unsafe SSL_CTX_set_info_callback(handle, TLSThunks.stateChanged)
        unsafe SSL_CTX_set_verify_depth(handle, Self.chainMax)
        unsafe SSL_CTX_set_default_passwd_cb(handle, TLSThunks.refusePassword)
        _ = unsafe lb_ssl_ctx_set_groups(handle, Self.sharedGroups)
        _ = unsafe SSL_CTX_set_cipher_list(handle, Self.ciphers12)
        _ = unsafe SSL_CTX_set_ciphersuites(handle, Self.ciphers13)
        _ = unsafe lb_ssl_ctx_set_min_version(handle, TLS1_2_VERSION)
    }

    deinit {
        unsafe SSL_CTX_free(handle)
    }

    /// Loads a chain and its key, and checks that they belong together.
    func use(_ files: CertificateFiles) throws(TLSProblem) {
        TLSErrors.clear()
        guard unsafe SSL_CTX_use_certificate_chain_file(handle, files.certificatePath) == 1 else {
            throw problem("certificate", files.certificatePath, mend: "it must be PEM, the server's own first")
        }
        TLSErrors.clear()
        guard unsafe SSL_CTX_use_PrivateKey_file(handle, files.keyPath, SSL_FILETYPE_PEM) == 1 else {
            if TLSErrors.isFirst(X509_R_KEY_VALUES_MISMATCH) || TLSErrors.isFirst(X509_R_KEY_TYPE_MISMATCH) {
                throw mismatch(files)
            }
            throw problem("key", files.keyPath, mend: "it must be a private key in PEM without a password")
        }
        guard unsafe SSL_CTX_check_private_key(handle) == 1 else { throw mismatch(files) }
    }

    private func mismatch(_ files: CertificateFiles) -> TLSProblem {
        TLSProblem(
            "the key \(files.keyPath) does not belong to the certificate \(files.certificatePath); give the key that the "
                + "certificate was made for")
    }

    private func problem(_ what: String, _ path: String, mend: String) -> TLSProblem {
        TLSProblem("cannot use the \(what) \(path): \(TLSErrors.take() ?? "unknown error"); \(mend)")
    }

    /// The certificate that `use` loaded last.
    var certificate: OpaquePointer? { unsafe SSL_CTX_get0_certificate(handle) }

    /// Trusts whoever a file of PEM certificates says.
    func trust(caPath: String) throws(TLSProblem) {
        TLSErrors.clear()
        guard unsafe SSL_CTX_load_verify_file(handle, caPath) == 1 else {
            throw problem("CA file", caPath, mend: "it must have certificates in PEM")
        }
    }

    /// Takes ciphers as OpenSSL names them; those of TLS 1.3 begin with TLS_.
    func use(ciphers: String) throws(TLSProblem) {
        let names = ciphers.split(separator: ":")
        let suites = names.filter { $0.hasPrefix("TLS_") }.joined(separator: ":")
        let list = names.filter { !$0.hasPrefix("TLS_") }.joined(separator: ":")
        TLSErrors.clear()
        let takesSuites = unsafe suites.isEmpty || SSL_CTX_set_ciphersuites(handle, suites) == 1
        let takesList = unsafe list.isEmpty || SSL_CTX_set_cipher_list(handle, list) == 1
        guard takesSuites, takesList, !names.isEmpty else {
            throw TLSProblem(
                "cannot use the ciphers \(ciphers): \(TLSErrors.take() ?? "the list is empty"); use names that "
                    + "\"openssl ciphers\" prints, joined by colons")
        }
    }
}
