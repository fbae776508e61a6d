import CShims
import Glibc
import ShmRing

/// One side of a TLS connection over a non-blocking socket.
///
///     handshake() … ─► open ─► receive, send, flush … ─► finishSending ─► close
///          └─► failed (whatever the peer does then)
///
/// OpenSSL reads and writes through this object (`TLSThunks` calls `readSocket` and `writeSocket`), so it knows whether
/// the socket was emptied, and what the kernel does not take of a record waits here, in `backlog`: OpenSSL's writes
/// always succeed, and a record is never to be tried again, which would have to be with the very same bytes.
/// Receiving may wait for room all the same: a peer that makes us answer (key updates) and does not read fills the
/// backlog.
///
/// Unsafe: OpenSSL's handle, owned here and freed once; it has pointers to this object, which outlives it.
@safe
final class TLSSession: Transport {
    enum State {
        case handshaking, open
        /// After a fatal error: nothing may be said to the peer any more.
        case failed
        case closed
    }

    enum HandshakeOutcome: Equatable {
        case done
        case wouldBlock
        /// OpenSSL's reason.
        case failed(String)
    }

    /// The largest piece that one record holds (RFC 8446 §5.1).
    static let recordBytesMax = 16384
    /// Room of the backlog behind what it was made for: one more record, and what a peer may make us answer without
    /// reading.
    private static let backlogBytesMax = 32768

    private let ssl: OpaquePointer
    private let descriptor: Int32
    private let scratch: ByteBuffer
    /// Records that wait for the others of the same call; empty in between.
    private let records: ByteBuffer
    private var isGathering = false
    /// Keeps the context and what its callbacks need alive.
    private let owner: AnyObject
    private(set) var state = State.handshaking
    private var backlog: ByteBuffer?
    private(set) var memory: SessionMemory?
    /// What the session asked for by name.
    private(set) var serverName = ""
    /// OpenSSL will ask the peer's certificate for what was expected.
    private var isNameKnown = true
    /// The last read took everything that the socket had, and nothing has come since.
    private var isSocketEmpty = false
    private var sawEnd = false
    private var socketError: Int32 = 0
    /// The first byte that ever came.
    private(set) var firstByte: UInt8?

    // What came since the last application data: records that carry none cost work, and OpenSSL reads them all before
    // it returns.
    private var silentBytes = 0
    private var silentMessages = 0
    /// A record as large as it may be, and what is read ahead of it.
    private static let silentBytesMax = 3 * recordBytesMax
    /// Steps that key updates and tickets in a row take, a few each.
    private static let silentMessagesMax = 96
    /// Records that one receive reads, so that small ones keep nobody else waiting.
    private static let recordsPerReceive = 64

    /// Whether what came is a request in plain HTTP: methods begin with a capital letter, no record does.
    var isPlainHTTP: Bool { firstByte.map { (0x41...0x5A).contains($0) } ?? false }

    init(_ context: TLSContext, isServer: Bool, descriptor: Int32, owner: AnyObject) {
        guard let session = unsafe SSL_new(context.handle), let bio = unsafe BIO_new(TLSThunks.socketMethod) else {
            preconditionFailure("OpenSSL makes no session: \(TLSErrors.take() ?? "")")
        }
        unsafe ssl = session
        scratch = context.scratch
        records = context.records
        self.descriptor = descriptor
        self.owner = owner
        super.init()
        // Neither retains: this object frees both handles.
        unsafe BIO_set_data(bio, Unmanaged.passUnretained(self).toOpaque())
        unsafe lb_ssl_set_owner(ssl, Unmanaged.passUnretained(self).toOpaque())
        unsafe SSL_set_bio(ssl, bio, bio)
        isServer ? unsafe SSL_set_accept_state(ssl) : unsafe SSL_set_connect_state(ssl)
    }

    deinit {
        if state != .closed { unsafe SSL_free(ssl) }
    }

    /// Says whom a client's session is with. Where OpenSSL does not take the name, it would ask for none: then there is
    /// no handshake.
    func expect(name: String, isAddress: Bool, memory: SessionMemory) {
        self.memory = memory
        TLSErrors.clear()
        if isAddress {
            isNameKnown = unsafe lb_ssl_match_address(ssl, name) == 1
        } else {
            serverName = name
            isNameKnown =
                unsafe !name.isEmpty && lb_ssl_set_server_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1
        }
        guard isNameKnown else { return TLSErrors.clear() }
        unsafe memory.offer(to: ssl)
    }

    /// Leaves HTTP/2 out of what is offered by ALPN.
    func offerHTTP1Alone() {
        let protocols = ALPN.list(["http/1.1"])
        _ = unsafe SSL_set_alpn_protos(ssl, protocols, UInt32(protocols.count))
    }

    // MARK: Handshake

    /// Goes on with the handshake as far as the socket allows.
    func handshake() -> HandshakeOutcome {
        guard unsafe isNameKnown || SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE else {
            state = .failed
            return .failed("no certificate can be checked for the backend's name")
        }
        receiveAwaitsWritable = false
        _ = flush()
        TLSErrors.clear()
        socketError = 0
        let result = unsafe SSL_do_handshake(ssl)
        if result == 1 {
            state = .open
            return .done
        }
        switch unsafe SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ: return .wouldBlock
        case SSL_ERROR_WANT_WRITE:
            receiveAwaitsWritable = true
            return .wouldBlock
        default:
            state = .failed
            return .failed(failureText())
        }
    }

    /// Why the handshake failed; where it was the certificate, what is wrong with it.
    private func failureText() -> String {
        let verification = unsafe SSL_get_verify_result(ssl)
        let text = TLSErrors.take()
        if socketError != 0 { return unsafe String(cString: strerror(socketError)) }
        guard verification == X509_V_OK else {
            let reason = unsafe String(cString: X509_verify_cert_error_string(Int(verification)))
            return "\(text ?? "certificate verify failed"): \(reason)"
        }
        return sawEnd ? "the peer closed the connection in the handshake" : text ?? "unknown error"
    }

    /// After the handshake: whether a read may find something before the next event.
    var mayHaveBytes: Bool { unsafe !isSocketEmpty || SSL_has_pending(ssl) == 1 }

    // MARK: Transport

    override func socketBecameReadable() { isSocketEmpty = false }

    override var hasBacklog: Bool { backlog != nil }

    override func receive(into buffer: ByteBuffer) -> IOResult {
        receiveAwaitsWritable = false
        isDrained = false
        var total = 0
        var work = 0
        while buffer.writableBytes > 0, work < Self.recordsPerReceive {
            TLSErrors.clear()
            socketError = 0
            let count = unsafe buffer.fill { unsafe SSL_read(ssl, $0.baseAddress, Int32(clamping: $0.count)) }
            guard count > 0 else { return receiveEnded(count, total) }
            total += Int(count)
            work += 1 + silentMessages
            silentBytes = 0
            silentMessages = 0
            if isSocketEmpty, unsafe SSL_has_pending(ssl) == 0 {
                isDrained = true
                break
            }
        }
        return .bytes(total)
    }

    private func receiveEnded(_ count: Int32, _ total: Int) -> IOResult {
        switch unsafe SSL_get_error(ssl, count) {
        case SSL_ERROR_WANT_READ:
            isDrained = true
            return total > 0 ? .bytes(total) : .wouldBlock
        case SSL_ERROR_WANT_WRITE:
            receiveAwaitsWritable = true
            isDrained = true
            return total > 0 ? .bytes(total) : .wouldBlock
        case SSL_ERROR_ZERO_RETURN:
            return total > 0 ? .bytes(total) : .endOfStream
        default:
            // What was read first goes first; the next read fails in the same way.
            return total > 0 ? .bytes(total) : failed()
        }
    }

    /// An end without close_notify is no end: somebody may have cut the connection (RFC 8446 §6.1).
    private func failed() -> IOResult {
        state = .failed
        return .failed(Errno(socketError != 0 ? socketError : sawEnd ? ECONNRESET : EPROTO))
    }

    override func send(from buffer: ByteBuffer, countMax: Int) -> IOResult {
        if backlog != nil, case let result = flush(), result != .bytes(0) { return result }
        let wanted = min(countMax, buffer.readableBytes)
        if wanted <= Self.recordBytesMax { return wanted > 0 ? sendRecord(from: buffer, countMax: wanted) : .bytes(0) }
        return gathering { sendRecords(from: buffer, countMax: wanted) }
    }

    private func sendRecords(from buffer: ByteBuffer, countMax wanted: Int) -> IOResult {
        var total = 0
        while total < wanted, backlog == nil {
            let result = sendRecord(from: buffer, countMax: wanted - total)
            guard case .bytes(let count) = result else { return total > 0 ? .bytes(total) : result }
            total += count
        }
        return .bytes(total)
    }

    /// Hands the records that `body` makes to the kernel together: for it, and for the peer, one large piece is much
    /// cheaper than several.
    private func gathering(_ body: () -> IOResult) -> IOResult {
        isGathering = true
        let result = body()
        isGathering = false
        return sendGathered() ? result : failed()
    }

    /// - Returns: False when the socket is broken.
    private func sendGathered() -> Bool {
        let gathered = records
        guard !gathered.isEmpty else { return true }
        let taken = unsafe gathered.readable.withUnsafeBufferPointer { bytes in
            unsafe hand(UnsafeRawBufferPointer(bytes))
        }
        gathered.reset()
        return taken >= 0
    }

    private func sendRecord(from buffer: ByteBuffer, countMax: Int) -> IOResult {
        sendAwaitsReadable = false
        TLSErrors.clear()
        socketError = 0
        let wanted = min(countMax, Self.recordBytesMax)
        let result = unsafe buffer.readable.withUnsafeBufferPointer { bytes in
            unsafe SSL_write(ssl, bytes.baseAddress, Int32(wanted))
        }
        guard result <= 0 else {
            buffer.consume(Int(result))
            return .bytes(Int(result))
        }
        switch unsafe SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ:
            sendAwaitsReadable = true
            return .wouldBlock
        case SSL_ERROR_WANT_WRITE: return .wouldBlock
        default: return failed()
        }
    }

    /// A head and the first of its body in one record, then the rest in whole records.
    override func send(from buffer: ByteBuffer, then next: ByteBuffer, countMax: Int) -> IOResult {
        if backlog != nil, case let result = flush(), result != .bytes(0) { return result }
        let room = Self.recordBytesMax - buffer.readableBytes
        guard room > 0, countMax > 0 else { return send(from: buffer, countMax: buffer.readableBytes) }
        guard next.readableBytes > room, countMax > room else {
            return sendJoined(buffer, next, countMax: countMax, room: room)
        }
        return gathering { sendJoined(buffer, next, countMax: countMax, room: room) }
    }

    private func sendJoined(_ buffer: ByteBuffer, _ next: ByteBuffer, countMax: Int, room: Int) -> IOResult {
        let count = min(room, countMax, next.readableBytes)
        scratch.append(buffer.readable)
        scratch.append(next.readable.extracting(first: count))
        let result = sendRecord(from: scratch, countMax: scratch.readableBytes)
        guard case .bytes(let sent) = result else {
            scratch.reset()
            return result
        }
        // A peer may ask for smaller records than ours (RFC 6066 §4).
        let isWhole = scratch.isEmpty
        scratch.reset()
        let ofHead = min(sent, buffer.readableBytes)
        buffer.consume(ofHead)
        next.consume(sent - ofHead)
        guard isWhole else { return .bytes(sent) }
        let rest = min(countMax - count, next.readableBytes)
        guard rest > 0, case .bytes(let more) = sendRecords(from: next, countMax: rest) else { return .bytes(sent) }
        return .bytes(sent + more)
    }

    override func flush() -> IOResult {
        guard let waiting = backlog else { return .bytes(0) }
        while !waiting.isEmpty {
            let result = waiting.send(to: descriptor)
            guard case .bytes = result else { return result }
        }
        backlog = nil
        return .bytes(0)
    }

    /// Sends close_notify.
    override func finishSending() {
        guard state == .open, unsafe SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN == 0 else { return }
        TLSErrors.clear()
        _ = unsafe SSL_shutdown(ssl)
    }

    override func acceptBareEnd() { unsafe lb_ssl_accept_bare_end(ssl) }

    override func close(isReset: Bool) {
        precondition(state != .closed, "a session closed twice")
        if isReset || state != .open {
            // OpenSSL would take the session for spoilt and not resume it.
            unsafe SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
        } else {
            finishSending()
            _ = flush()
        }
        state = .closed
        unsafe SSL_free(ssl)
    }

    // MARK: What OpenSSL asks

    /// Takes what OpenSSL writes: where more records follow to be sent with them, else to the kernel, and to the backlog
    /// what the kernel refuses.
    /// - Returns: All of `count`, 0 when even the backlog is full, -1 when the socket is broken.
    func writeSocket(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard isGathering else { return unsafe hand(bytes) }
        guard records.writableBytes >= bytes.count || sendGathered() else { return -1 }
        guard records.writableBytes >= bytes.count, backlog == nil else { return unsafe hand(bytes) }
        records.append(unsafe UnsafeBufferPointer(rebasing: bytes.bindMemory(to: UInt8.self)[...]).span)
        return bytes.count
    }

    private func hand(_ bytes: UnsafeRawBufferPointer) -> Int {
        var taken = 0
        if backlog == nil {
            taken = unsafe Glibc.send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if taken == bytes.count { return taken }
            if taken < 0 {
                guard errno == EAGAIN || errno == EINTR else { return broken(errno) }
                taken = 0
            }
        }
        let waiting = backlog ?? ByteBuffer(capacity: bytes.count - taken + Self.backlogBytesMax)
        waiting.compact()
        guard waiting.writableBytes >= bytes.count - taken else { return 0 }
        let rest = unsafe UnsafeBufferPointer(rebasing: bytes.bindMemory(to: UInt8.self)[taken...])
        waiting.append(unsafe rest.span)
        backlog = waiting
        return bytes.count
    }

    /// Fills what OpenSSL gives.
    /// - Returns: How many bytes, 0 at the end, -1 when there are none yet, -2 when the socket is broken.
    func readSocket(into bytes: UnsafeMutableRawBufferPointer) -> Int {
        guard silentBytes <= Self.silentBytesMax, silentMessages <= Self.silentMessagesMax else {
            return broken(EPROTO) - 1
        }
        while true {
            let count = unsafe recv(descriptor, bytes.baseAddress, bytes.count, 0)
            isSocketEmpty = count < bytes.count
            if count > 0 {
                if firstByte == nil { unsafe firstByte = bytes[0] }
                if state == .open { silentBytes += count }
                return count
            }
            if count == 0 {
                sawEnd = true
                return 0
            }
            if errno == EAGAIN { return -1 }
            if errno != EINTR { return broken(errno) - 1 }
        }
    }

    /// A message of the handshake came or goes, a key update or a ticket where that is over.
    func handshakeMoved() {
        if state == .open { silentMessages += 1 }
    }

    private func broken(_ error: Int32) -> Int {
        socketError = error
        return -1
    }

    /// Whether the peer's bytes have ended.
    var isAtEnd: Bool { sawEnd }

    // MARK: What was agreed on

    /// "1.2" or "1.3".
    var version: String { unsafe String(cString: SSL_get_version(ssl)).replacing("TLSv", with: "") }

    /// By its IANA name.
    var cipher: String {
        guard let cipher = unsafe SSL_get_current_cipher(ssl), let name = unsafe SSL_CIPHER_standard_name(cipher)
        else { return "" }
        return unsafe String(cString: name)
    }

    /// Who the client is by the certificate that it has shown, now or in the handshake that is resumed.
    var clientIdentity: ClientIdentity? {
        var subject = [CChar](repeating: 0, count: ClientIdentity.subjectBytesMax)
        var fingerprint = [UInt8](repeating: 0, count: 32)
        let count = unsafe lb_ssl_client_identity(ssl, &subject, Int32(subject.count), &fingerprint)
        guard count != -1 else { return nil }
        return ClientIdentity(
            subject: subject.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, fingerprint: fingerprint)
    }

    var isResumed: Bool { unsafe SSL_session_reused(ssl) == 1 }

    /// Whether ALPN came to HTTP/2.
    var speaksHTTP2: Bool {
        var bytes: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        unsafe SSL_get0_alpn_selected(ssl, &bytes, &count)
        return unsafe UnsafeBufferPointer(start: bytes, count: Int(count)).span.matches("h2")
    }

    /// What ALPN came to, empty without it.
    var applicationProtocol: String {
        var bytes: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        unsafe SSL_get0_alpn_selected(ssl, &bytes, &count)
        return unsafe String(decoding: UnsafeBufferPointer(start: bytes, count: Int(count)), as: UTF8.self)
    }
}
