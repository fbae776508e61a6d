import ShmRing

// Which keys attributes go out under. Workers record the classic keys only; the stable ones of the
// OpenTelemetry HTTP semantic conventions 1.23 and later are made from them here, so that the choice costs
// workers nothing. Keys that are the product's own (lb.*, pool.*, …) and those that both conventions share
// (error.type) go out unchanged under either choice.

/// Keys of the stable HTTP conventions. Raw values fit into 7 bits; see `OutputKey`.
enum StableKey: UInt8, CaseIterable {
    case httpRequestMethod
    case urlFull
    case urlScheme
    case urlPath
    case urlQuery
    case httpResponseStatusCode
    case networkProtocolVersion
    case serverAddress
    case serverPort
    case userAgentOriginal
    case httpRequestBodySize
    case httpResponseBodySize
    case httpRequestResendCount
    case clientAddress
    case networkPeerAddress
    case networkPeerPort
    case dnsQuestionName
    case tlsNextProtocol

    var text: StaticString {
        switch self {
        case .httpRequestMethod: "http.request.method"
        case .urlFull: "url.full"
        case .urlScheme: "url.scheme"
        case .urlPath: "url.path"
        case .urlQuery: "url.query"
        case .httpResponseStatusCode: "http.response.status_code"
        case .networkProtocolVersion: "network.protocol.version"
        case .serverAddress: "server.address"
        case .serverPort: "server.port"
        case .userAgentOriginal: "user_agent.original"
        case .httpRequestBodySize: "http.request.body.size"
        case .httpResponseBodySize: "http.response.body.size"
        case .httpRequestResendCount: "http.request.resend_count"
        case .clientAddress: "client.address"
        case .networkPeerAddress: "network.peer.address"
        case .networkPeerPort: "network.peer.port"
        case .dnsQuestionName: "dns.question.name"
        case .tlsNextProtocol: "tls.next_protocol"
        }
    }
}

/// A key as it goes out, small enough to index a table of ready-made bytes: 0 is none, 1…127 the classic
/// keys by their numbers in the segment, 128… the stable keys.
struct OutputKey: Equatable {
    static let tableSize = 256
    static let none = OutputKey(rawValue: 0)

    let rawValue: UInt8

    init(rawValue: UInt8) { self.rawValue = rawValue }

    init(_ key: AttributeKey) {
        precondition(key.rawValue < 128, "more classic keys than the table has room for")
        rawValue = UInt8(key.rawValue)
    }

    init(_ key: StableKey) { rawValue = key.rawValue | 128 }

    /// Every key that can go out, for building tables.
    static var all: [OutputKey] {
        AttributeKey.allCases.map { OutputKey($0) } + StableKey.allCases.map { OutputKey($0) }
    }

    var text: StaticString {
        if rawValue >= 128, let key = StableKey(rawValue: rawValue & 127) { return key.text }
        if let key = AttributeKey(rawValue: UInt16(rawValue)) { return key.text }
        preconditionFailure("no key has the number \(rawValue)")
    }
}

/// What becomes of one recorded attribute.
struct AttributeRule {
    /// How the value becomes values of stable keys.
    enum Expansion: UInt8 {
        /// The value goes out unchanged under `first`, `second` and `third`, where they are not none.
        case none
        /// Also as url.scheme, url.path and url.query.
        case url
        /// Also as server.address and server.port.
        case authority
    }

    var isKnown = false
    var expansion = Expansion.none
    var first = OutputKey.none
    var second = OutputKey.none
    var third = OutputKey.none
}

/// The rules of one naming, for every key and kind of span.
struct AttributeRules {
    /// First the rules for every kind but SERVER, then those for SERVER.
    private var table: [AttributeRule]
    private let keyCount: Int

    init(_ naming: ExporterConfiguration.AttributeNaming) {
        keyCount = Int(AttributeKey.allCases.map(\.rawValue).max() ?? 0) + 1
        table = Array(repeating: AttributeRule(), count: 2 * keyCount)
        for key in AttributeKey.allCases {
            table[Int(key.rawValue)] = Self.rule(key, naming, isServer: false)
            table[Int(key.rawValue) + keyCount] = Self.rule(key, naming, isServer: true)
        }
    }

    /// The rule for a recorded key; for a number that is no key, one with `isKnown` false.
    @inline(__always)
    func rule(forKey key: UInt16, isServer: Bool) -> AttributeRule {
        guard Int(key) < keyCount else { return AttributeRule() }
        return table[Int(key) + (isServer ? keyCount : 0)]
    }

    private static func rule(
        _ key: AttributeKey, _ naming: ExporterConfiguration.AttributeNaming, isServer: Bool
    ) -> AttributeRule {
        let stable = stableNames(of: key, isServer: isServer)
        var names: [OutputKey] = naming == .stable && stable.isReplaced ? [] : [OutputKey(key)]
        if naming != .classic { names += stable.keys.map { OutputKey($0) } }
        names += Array(repeating: .none, count: 3 - names.count)
        return AttributeRule(
            isKnown: true, expansion: naming == .classic ? .none : stable.expansion, first: names[0], second: names[1],
            third: names[2])
    }

    /// The stable counterpart of a classic key (semantic conventions, "HTTP migration guide"). `url.full`
    /// belongs to clients; servers split it. The peer of a SERVER span is the client; elsewhere it is the
    /// server that was connected to.
    private static func stableNames(
        of key: AttributeKey, isServer: Bool
    ) -> (keys: [StableKey], expansion: AttributeRule.Expansion, isReplaced: Bool) {
        switch key {
        case .httpMethod: ([.httpRequestMethod], .none, true)
        case .httpURL: isServer ? ([], .url, true) : ([.urlFull], .none, true)
        case .httpStatusCode: ([.httpResponseStatusCode], .none, true)
        case .httpFlavor: ([.networkProtocolVersion], .none, true)
        case .httpHost: ([], .authority, true)
        case .httpUserAgent: ([.userAgentOriginal], .none, true)
        case .httpRequestContentLength: ([.httpRequestBodySize], .none, true)
        case .httpResponseContentLength: ([.httpResponseBodySize], .none, true)
        case .httpResendCount: ([.httpRequestResendCount], .none, true)
        case .netPeerIP: (isServer ? [.clientAddress, .networkPeerAddress] : [.networkPeerAddress], .none, true)
        case .netPeerPort: ([isServer ? .networkPeerPort : .serverPort], .none, true)
        case .netPeerName: ([.serverAddress], .none, true)
        case .dnsHostname: ([.dnsQuestionName], .none, true)
        case .tlsALPN: ([.tlsNextProtocol], .none, true)
        case .statusMessage, .httpBodyType, .httpBodyExpectedLength, .httpBodyBytesTransferred, .httpBodyHadError,
            .backendID, .backendHost, .lbWorker, .lbGeneration, .lbRetryCount, .lbTreesLost, .lbStrategy,
            .lbBackendCount, .lbHealthyCount, .lbSelectedBackend, .connectionFromPool, .connectionID, .poolOutcome,
            .poolIdleCount, .poolActiveCount, .dnsAnswers, .dnsCached, .errorType, .retryReason, .retryAttempt,
            .retryVerdict, .failures, .workerSignal, .workerLastPhase, .tlsServerName, .tlsCipher, .tlsVersion,
            .tlsResumed, .httpBodyLength, .httpBodyBytesWritten, .h2RetryCount, .h2StreamID, .h2StreamsActive,
            .h2MaxConcurrentStreams, .h2InitialWindowSize, .h2ErrorCode, .h2LastStreamID, .h2DebugData, .h2Processed,
            .h2ResetBy, .connectionTLS, .connectionRequestsStarted, .connectionRequestsAnswered, .connectionBytesSent,
            .connectionBytesReceived, .connectionCloseReason, .h2SettingsCount, .h2GoawayCount, .h2PingCount,
            .h2PingRTT,
            .h2PingRTTMin, .h2PingRTTMax:
            ([], .none, false)
        }
    }
}

/// The parts of a recorded URL or Host value as ranges of the record; empty where there is none.
enum AddressParts {
    /// RFC 3986 §3: scheme "://" authority path [ "?" query ] [ "#" fragment ].
    static func url(_ record: RawSpan, _ range: Range<Int>) -> (scheme: Range<Int>, path: Range<Int>, query: Range<Int>)
    {
        let empty = range.upperBound..<range.upperBound
        guard let colon = RecordBytes.firstIndex(of: UInt8(ascii: ":"), in: record, range),
            colon + 2 < range.upperBound, RecordBytes.byte(record, at: colon + 1) == UInt8(ascii: "/"),
            RecordBytes.byte(record, at: colon + 2) == UInt8(ascii: "/")
        else { return (empty, empty, empty) }
        let rest = (colon + 3)..<range.upperBound
        let end = RecordBytes.firstIndex(of: UInt8(ascii: "#"), in: record, rest) ?? rest.upperBound
        let mark = RecordBytes.firstIndex(of: UInt8(ascii: "?"), in: record, rest.lowerBound..<end) ?? end
        let slash = RecordBytes.firstIndex(of: UInt8(ascii: "/"), in: record, rest.lowerBound..<mark) ?? mark
        return (range.lowerBound..<colon, slash..<mark, min(mark + 1, end)..<end)
    }

    /// RFC 9110 §7.2: uri-host [ ":" port ], an IPv6 address in brackets, which are not part of it.
    static func authority(_ record: RawSpan, _ range: Range<Int>) -> (host: Range<Int>, port: Int64?) {
        let isBracketed = !range.isEmpty && RecordBytes.byte(record, at: range.lowerBound) == UInt8(ascii: "[")
        if isBracketed, let close = RecordBytes.firstIndex(of: UInt8(ascii: "]"), in: record, range) {
            return ((range.lowerBound + 1)..<close, port(record, (close + 1)..<range.upperBound))
        }
        let colon = RecordBytes.firstIndex(of: UInt8(ascii: ":"), in: record, range) ?? range.upperBound
        return (range.lowerBound..<colon, port(record, colon..<range.upperBound))
    }

    /// The number behind a colon, nil for anything that is no port.
    private static func port(_ record: RawSpan, _ range: Range<Int>) -> Int64? {
        guard range.count >= 2, range.count <= 6, RecordBytes.byte(record, at: range.lowerBound) == UInt8(ascii: ":")
        else { return nil }
        var port: Int64 = 0
        for offset in range.dropFirst() {
            let digit = RecordBytes.byte(record, at: offset) &- UInt8(ascii: "0")
            guard digit < 10 else { return nil }
            port = port * 10 + Int64(digit)
        }
        return port <= 65535 ? port : nil
    }
}
