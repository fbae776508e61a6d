import CShims
import Glibc

/// Where OpenSSL calls back. Each thunk checks its pointers, finds the object, calls one method and maps the result.
///
/// Objects are found by pointers that do not retain: sessions through their BIO and their handle, which they own and
/// free; a `TLSServer` through its contexts, which it owns. No object is freed inside its own callback.
/// Unsafe: all of it.
enum TLSThunks {
    /// A BIO that reads and writes through a `TLSSession`. Made once a process, never changed and never freed.
    nonisolated(unsafe) static let socketMethod: OpaquePointer = {
        let index = BIO_get_new_index() | BIO_TYPE_SOURCE_SINK
        guard let method = unsafe BIO_meth_new(index, "TLSSession") else { preconditionFailure("no memory for a BIO") }
        _ = unsafe BIO_meth_set_write(method, write)
        _ = unsafe BIO_meth_set_read(method, read)
        _ = unsafe BIO_meth_set_ctrl(method, control)
        _ = unsafe BIO_meth_set_create(method, create)
        return unsafe method
    }()

    private static func session(of bio: OpaquePointer?) -> TLSSession? {
        guard let bio = unsafe bio, let data = unsafe BIO_get_data(bio) else { return nil }
        return unsafe Unmanaged<TLSSession>.fromOpaque(data).takeUnretainedValue()
    }

    private static func server(of ssl: OpaquePointer?) -> TLSServer? {
        guard let ssl = unsafe ssl, let context = unsafe SSL_get_SSL_CTX(ssl),
            let owner = unsafe lb_ssl_ctx_owner(context)
        else { return nil }
        return unsafe Unmanaged<TLSServer>.fromOpaque(owner).takeUnretainedValue()
    }

    // MARK: BIO

    private static let create: @convention(c) (OpaquePointer?) -> Int32 = { bio in
        unsafe BIO_set_init(bio, 1)
        return 1
    }

    private static let write: @convention(c) (OpaquePointer?, UnsafePointer<CChar>?, Int32) -> Int32 = {
        bio, bytes, count in
        unsafe lb_bio_clear_retry(bio)
        guard let session = unsafe session(of: bio), let bytes = unsafe bytes else { return -1 }
        let taken = unsafe session.writeSocket(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
        if taken == 0, count > 0 { unsafe lb_bio_retry_write(bio) }
        return taken > 0 ? Int32(taken) : -1
    }

    private static let read: @convention(c) (OpaquePointer?, UnsafeMutablePointer<CChar>?, Int32) -> Int32 = {
        bio, bytes, count in
        unsafe lb_bio_clear_retry(bio)
        guard let session = unsafe session(of: bio), let bytes = unsafe bytes else { return -1 }
        let taken = unsafe session.readSocket(into: UnsafeMutableRawBufferPointer(start: bytes, count: Int(count)))
        if taken == -1 { unsafe lb_bio_retry_read(bio) }
        return Int32(max(taken, -1))
    }

    private static let control: @convention(c) (OpaquePointer?, Int32, Int, UnsafeMutableRawPointer?) -> Int = {
        bio, command, _, _ in
        switch command {
        case Int32(LB_BIO_CTRL_FLUSH): 1
        case Int32(LB_BIO_CTRL_EOF): unsafe session(of: bio)?.isAtEnd ?? true ? 1 : 0
        default: 0
        }
    }

    // MARK: Contexts

    /// The state of a handshake moves on.
    static let stateChanged: lb_ssl_info_callback = { ssl, place, _ in
        guard place & SSL_CB_LOOP != 0, let ssl = unsafe ssl, let owner = unsafe lb_ssl_owner(ssl) else { return }
        unsafe Unmanaged<TLSSession>.fromOpaque(owner).takeUnretainedValue().handshakeMoved()
    }

    /// Nobody is there to type the password of a key.
    static let refusePassword:
        @convention(c) (UnsafeMutablePointer<CChar>?, Int32, Int32, UnsafeMutableRawPointer?) -> Int32 = {
            _, _, _, _ in -1
        }

    /// SNI: the context of the name that the client asks for.
    static let selectCertificate: lb_ssl_name_callback = { ssl, _, _ in
        guard let server = unsafe server(of: ssl), let name = unsafe lb_ssl_server_name(ssl),
            let context = unsafe server.context(named: name)
        else { return SSL_TLSEXT_ERR_OK }
        unsafe SSL_set_SSL_CTX(ssl, context)
        return SSL_TLSEXT_ERR_OK
    }

    /// ALPN: what is preferred here; nothing in common is an error (RFC 7301 §3.2).
    static let selectProtocol: SSL_CTX_alpn_select_cb_func = { ssl, chosen, chosenCount, offered, offeredCount, _ in
        guard let server = unsafe server(of: ssl), let offered = unsafe offered, let chosen = unsafe chosen,
            let chosenCount = unsafe chosenCount
        else { return SSL_TLSEXT_ERR_NOACK }
        let list = unsafe UnsafeBufferPointer(start: offered, count: Int(offeredCount))
        guard let range = unsafe server.chosenProtocol(list) else { return SSL_TLSEXT_ERR_ALERT_FATAL }
        unsafe chosen.pointee = unsafe offered + range.lowerBound
        unsafe chosenCount.pointee = UInt8(range.count)
        return SSL_TLSEXT_ERR_OK
    }

    /// OCSP: the response for the certificate that the client gets.
    static let staple: lb_ssl_status_callback = { ssl, _ in
        guard let ssl = unsafe ssl, let server = unsafe server(of: ssl),
            let certificate = unsafe SSL_get_certificate(ssl)
        else { return SSL_TLSEXT_ERR_NOACK }
        let response = unsafe server.staple(for: certificate)
        guard !response.isEmpty, unsafe lb_ssl_staple(ssl, response, response.count) == 1 else {
            return SSL_TLSEXT_ERR_NOACK
        }
        return SSL_TLSEXT_ERR_OK
    }

    /// Seals (`seals` 1) or opens a ticket. 0: not ours, a full handshake follows; 2: opened, but send a new one.
    static let ticketKey:
        @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<UInt8>?, OpaquePointer?, OpaquePointer?,
            Int32
        ) -> Int32 = { ssl, name, iv, cipher, mac, seals in
            guard let server = unsafe server(of: ssl), let name = unsafe name, let iv = unsafe iv else { return -1 }
            let tickets = server.currentTickets()
            guard seals == 0 else {
                guard unsafe RAND_bytes(iv, 16) == 1 else { return -1 }
                unsafe memcpy(name, tickets.current, 16)
                return unsafe lb_ticket_prepare(cipher, mac, tickets.current, iv, 1) == 1 ? 1 : -1
            }
            let label = unsafe UnsafeRawBufferPointer(start: name, count: 16)
            guard let (keys, isOld) = unsafe tickets.keys(named: label) else { return 0 }
            guard unsafe lb_ticket_prepare(cipher, mac, keys, iv, 0) == 1 else { return -1 }
            // A ticket of TLS 1.3 is for one use (RFC 8446 §C.4).
            return unsafe isOld || SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1
        }

    /// A backend's session can be resumed from now on. 1: it is ours now.
    static let newSession: @convention(c) (OpaquePointer?, OpaquePointer?) -> Int32 = { ssl, fresh in
        guard let ssl = unsafe ssl, let fresh = unsafe fresh, let owner = unsafe lb_ssl_owner(ssl) else { return 0 }
        let session = unsafe Unmanaged<TLSSession>.fromOpaque(owner).takeUnretainedValue()
        guard let memory = session.memory else { return 0 }
        unsafe memory.keep(fresh)
        return 1
    }
}
