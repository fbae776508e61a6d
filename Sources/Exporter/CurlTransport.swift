import CShims
import Glibc

/// Posts bodies to one URL over libcurl's multi interface: connections kept alive, a fixed number of posts
/// at a time, one slot each.
///
///     post(slot) ──► … wait / advance … ──► (slot, outcome) ──► the slot is free
///
/// Knows nothing of spans or retries. Unsafe: libcurl's handles and its one callback. libcurl keeps a
/// pointer to each `Exchange` (not retained: this object owns exchange and handle and frees the handle
/// first) and to a body's bytes, which the exchange keeps alive until the transfer is over.
@safe
final class CurlTransport {
    struct Settings {
        var url: String
        var userAgent: String
        /// Header fields as lines, Content-Type included.
        var headerLines: [String]
        var timeoutNs: UInt64
        /// How many posts at a time.
        var slotCount: Int
        var tls = ExporterConfiguration.CollectorTLS()
    }

    struct Answer: Equatable {
        let status: Int
        /// 0: the collector did not say.
        let retryAfterNs: UInt64
        let body: [UInt8]
        /// The body was longer than `answerBytesMax` and is cut.
        let isCut: Bool
    }

    enum Outcome: Equatable {
        case answered(Answer)
        /// No answer: refused, reset, timed out, no such name …
        case failed(reason: String)
    }

    /// Longest answer read; a transfer with a longer one is ended there.
    static let answerBytesMax = 64 * 1024
    /// How much libcurl copies and hands to the kernel at a time: fits a core's second-level cache.
    private static let uploadChunkBytes = 256 * 1024
    private static let connectTimeoutMaxNs: UInt64 = 5_000_000_000

    private let multi: UnsafeMutableRawPointer
    private let headers: UnsafeMutablePointer<curl_slist>?
    private let exchanges: [Exchange]

    /// Starts libcurl in this process, which must have been forked already.
    init(_ settings: Settings) {
        guard curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK, let multi = unsafe curl_multi_init() else {
            preconditionFailure("libcurl cannot start")
        }
        unsafe self.multi = unsafe multi
        var list: UnsafeMutablePointer<curl_slist>?
        // An empty Expect keeps libcurl from waiting for "100 Continue" before a large body.
        for line in settings.headerLines + ["Expect:"] { unsafe list = curl_slist_append(list, line) }
        unsafe headers = unsafe list
        exchanges = (0..<settings.slotCount).map { _ in Exchange() }
        for exchange in exchanges { unsafe Self.configure(exchange, settings, headers: list) }
    }

    deinit {
        for exchange in exchanges {
            if exchange.body != nil { unsafe curl_multi_remove_handle(multi, exchange.easy) }
            unsafe curl_easy_cleanup(exchange.easy)
        }
        unsafe curl_multi_cleanup(multi)
        unsafe curl_slist_free_all(headers)
    }

    /// Starts a post. The slot must be free.
    func post(_ body: PostBody, slot: Int) {
        let exchange = exchanges[slot]
        precondition(exchange.body == nil, "slot \(slot) is in use")
        exchange.begin(body)
        unsafe body.withUnsafeBytes { bytes in
            _ = unsafe lb_curl_set_body(exchange.easy, bytes.baseAddress, bytes.count)
        }
        let result = unsafe curl_multi_add_handle(multi, exchange.easy)
        precondition(result == CURLM_OK, "curl_multi_add_handle: \(result.rawValue)")
    }

    /// Sends and receives what can be without waiting.
    /// - Returns: The posts that ended. Their slots are free.
    func advance() -> [(slot: Int, outcome: Outcome)] {
        var running: Int32 = 0
        unsafe curl_multi_perform(multi, &running)
        var ended: [(slot: Int, outcome: Outcome)] = []
        var left: Int32 = 0
        while let message = unsafe curl_multi_info_read(multi, &left) {
            guard unsafe message.pointee.msg == CURLMSG_DONE, let easy = unsafe message.pointee.easy_handle,
                let slot = exchanges.firstIndex(where: { unsafe $0.easy == easy })
            else { continue }
            let result = unsafe message.pointee.data.result
            unsafe curl_multi_remove_handle(multi, easy)
            ended.append((slot, exchanges[slot].end(result)))
        }
        return ended
    }

    /// Waits until a post can go on, one of the descriptors is readable, or the time is over.
    func wait(descriptors: [Int32], timeoutMs: Int32) {
        var extra = descriptors.map { curl_waitfd(fd: $0, events: Int16(CURL_WAIT_POLLIN), revents: 0) }
        var ready: Int32 = 0
        unsafe curl_multi_poll(multi, &extra, UInt32(extra.count), timeoutMs, &ready)
    }

    private static func configure(
        _ exchange: Exchange, _ settings: Settings, headers: UnsafeMutablePointer<curl_slist>?
    ) {
        let timeoutMs = Int(settings.timeoutNs / 1_000_000)
        let connectMs = Int(min(settings.timeoutNs, connectTimeoutMaxNs) / 1_000_000)
        unsafe lb_curl_set_string(exchange.easy, CURLOPT_URL, settings.url)
        unsafe lb_curl_set_string(exchange.easy, CURLOPT_USERAGENT, settings.userAgent)
        unsafe lb_curl_set_string(exchange.easy, CURLOPT_PROTOCOLS_STR, "http,https")
        unsafe lb_curl_set_headers(exchange.easy, headers)
        for (option, path) in [
            (CURLOPT_CAINFO, settings.tls.authorities), (CURLOPT_SSLCERT, settings.tls.certificate),
            (CURLOPT_SSLKEY, settings.tls.key),
        ] {
            if let path { unsafe lb_curl_set_string(exchange.easy, option, path) }
        }
        for (option, value) in [
            (CURLOPT_POST, 1), (CURLOPT_NOSIGNAL, 1), (CURLOPT_FOLLOWLOCATION, 0), (CURLOPT_TIMEOUT_MS, timeoutMs),
            (CURLOPT_CONNECTTIMEOUT_MS, connectMs), (CURLOPT_UPLOAD_BUFFERSIZE, uploadChunkBytes),
            (CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1), (CURLOPT_TCP_KEEPALIVE, 1),
        ] {
            let result = unsafe lb_curl_set_long(exchange.easy, option, value)
            precondition(result == CURLE_OK, "curl option \(option.rawValue): \(result.rawValue)")
        }
        let context = unsafe Unmanaged.passUnretained(exchange).toOpaque()
        unsafe lb_curl_set_receiver(exchange.easy, receiveAnswer, context)
    }
}

/// One slot: a handle that is used again and again, and what belongs to its current post.
@safe
private final class Exchange {
    let easy: UnsafeMutableRawPointer
    private(set) var body: PostBody?
    private var answer: [UInt8] = []
    private var isCut = false

    init() {
        guard let easy = unsafe curl_easy_init() else { preconditionFailure("libcurl gives no handle") }
        unsafe self.easy = unsafe easy
    }

    func begin(_ body: PostBody) {
        self.body = body
        answer.removeAll(keepingCapacity: true)
        isCut = false
    }

    /// - Returns: False when that is enough.
    func received(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let room = CurlTransport.answerBytesMax - answer.count
        unsafe answer.append(contentsOf: bytes.prefix(room))
        isCut = isCut || bytes.count > room
        return !isCut
    }

    func end(_ result: CURLcode) -> CurlTransport.Outcome {
        body = nil
        let status = unsafe lb_curl_status(easy)
        guard result == CURLE_OK || (isCut && status != 0) else {
            return .failed(reason: unsafe String(cString: curl_easy_strerror(result)))
        }
        let seconds = max(0, min(unsafe lb_curl_retry_after_seconds(easy), 86_400))
        return .answered(
            CurlTransport.Answer(
                status: status, retryAfterNs: UInt64(seconds) * 1_000_000_000, body: answer, isCut: isCut))
    }
}

/// libcurl's CURLOPT_WRITEFUNCTION. The context is the exchange, which outlives its handle.
private func receiveAnswer(
    _ bytes: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ context: UnsafeMutableRawPointer?
) -> Int {
    guard let bytes = unsafe bytes, let context = unsafe context else { return 0 }
    let exchange = unsafe Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue()
    let piece = unsafe UnsafeRawBufferPointer(start: bytes, count: size * count)
    return unsafe exchange.received(piece) ? size * count : 0
}
