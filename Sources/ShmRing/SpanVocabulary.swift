// The words of a trace. In the segment they travel as these integers; the texts are the product's public
// contract. New cases go to the end: a reader of an older layout must not misread them.

/// What a span is about. The raw value is what stands in `lb_span_header.name`.
public enum SpanName: UInt8, CaseIterable, Sendable {
    case proxyRequest = 1
    case backendSelection
    case backendConnection
    case poolAcquire
    case dnsResolution
    case tcpConnect
    case backendRequest
    case responseStreaming
    case tlsHandshake
    case backendRequestH2
    case h2Handshake
    case upstreamConnection

    public var text: StaticString {
        switch self {
        case .proxyRequest: "proxy_request"
        case .backendSelection: "backend_selection"
        case .backendConnection: "backend_connection"
        case .poolAcquire: "pool_acquire"
        case .dnsResolution: "dns_resolution"
        case .tcpConnect: "tcp_connect"
        case .backendRequest: "backend_request"
        case .responseStreaming: "response_streaming"
        case .tlsHandshake: "tls_handshake"
        case .backendRequestH2: "backend_request_h2"
        case .h2Handshake: "h2_handshake"
        case .upstreamConnection: "upstream_connection"
        }
    }
}

/// Span kinds with OTLP's numbers.
public enum SpanKind: UInt8, CaseIterable, Sendable {
    case `internal` = 1
    case server = 2
    case client = 3
}

/// Span status codes with OTLP's numbers.
public enum SpanStatus: UInt8, CaseIterable, Sendable {
    case unset = 0
    case ok = 1
    case error = 2
}

/// Values of `http.flavor` with their numbers in request records.
public enum HTTPFlavor: UInt8, CaseIterable, Sendable {
    case http10 = 0
    case http11 = 1
    case http2 = 2

    public var text: StaticString {
        switch self {
        case .http10: "1.0"
        case .http11: "1.1"
        case .http2: "2"
        }
    }
}

/// What an event says.
public enum EventName: UInt8, CaseIterable, Sendable {
    case retryTriggered = 1
    case retryDenied
    case backendMarkedUnhealthy
    case drainStarted
    case goawayReceived
    case streamReset
    case settingsReceived
    case pingAcknowledged

    public var text: StaticString {
        switch self {
        case .retryTriggered: "retry_triggered"
        case .retryDenied: "retry_denied"
        case .backendMarkedUnhealthy: "backend_marked_unhealthy"
        case .drainStarted: "drain_started"
        case .goawayReceived: "goaway_received"
        case .streamReset: "stream_reset"
        case .settingsReceived: "settings_received"
        case .pingAcknowledged: "ping_acknowledged"
        }
    }
}

/// Attribute keys. `statusMessage` is no attribute: it carries OTLP's `Status.message` of its span.
public enum AttributeKey: UInt16, CaseIterable, Sendable {
    case statusMessage = 1
    case httpMethod
    case httpURL
    case httpStatusCode
    case httpFlavor
    case httpHost
    case httpUserAgent
    case httpRequestContentLength
    case httpResponseContentLength
    case httpResendCount
    case httpBodyType
    case httpBodyExpectedLength
    case httpBodyBytesTransferred
    case httpBodyHadError
    case backendID
    case backendHost
    case netPeerIP
    case netPeerPort
    case netPeerName
    case lbWorker
    case lbGeneration
    case lbRetryCount
    case lbTreesLost
    case lbStrategy
    case lbBackendCount
    case lbHealthyCount
    case lbSelectedBackend
    case connectionFromPool
    case connectionID
    case poolOutcome
    case poolIdleCount
    case poolActiveCount
    case dnsHostname
    case dnsAnswers
    case dnsCached
    case errorType
    case retryReason
    case retryAttempt
    case retryVerdict
    case failures
    case workerSignal
    case workerLastPhase
    case tlsServerName
    case tlsCipher
    case tlsALPN
    case tlsVersion
    case tlsResumed
    case httpBodyLength
    case httpBodyBytesWritten
    case h2RetryCount
    case h2StreamID
    case h2StreamsActive
    case h2MaxConcurrentStreams
    case h2InitialWindowSize
    case h2ErrorCode
    case h2LastStreamID
    case h2DebugData
    case h2Processed
    case h2ResetBy
    case connectionTLS
    case connectionRequestsStarted
    case connectionRequestsAnswered
    case connectionBytesSent
    case connectionBytesReceived
    case connectionCloseReason
    case h2SettingsCount
    case h2GoawayCount
    case h2PingCount
    case h2PingRTT
    case h2PingRTTMin
    case h2PingRTTMax

    public var text: StaticString {
        switch self {
        case .statusMessage: "status.message"
        case .httpMethod: "http.method"
        case .httpURL: "http.url"
        case .httpStatusCode: "http.status_code"
        case .httpFlavor: "http.flavor"
        case .httpHost: "http.host"
        case .httpUserAgent: "http.user_agent"
        case .httpRequestContentLength: "http.request_content_length"
        case .httpResponseContentLength: "http.response_content_length"
        case .httpResendCount: "http.resend_count"
        case .httpBodyType: "http.body.type"
        case .httpBodyExpectedLength: "http.body.expected_length"
        case .httpBodyBytesTransferred: "http.body.bytes_transferred"
        case .httpBodyHadError: "http.body.had_error"
        case .backendID: "backend.id"
        case .backendHost: "backend.host"
        case .netPeerIP: "net.peer.ip"
        case .netPeerPort: "net.peer.port"
        case .netPeerName: "net.peer.name"
        case .lbWorker: "lb.worker"
        case .lbGeneration: "lb.generation"
        case .lbRetryCount: "lb.retry_count"
        case .lbTreesLost: "lb.trees_lost"
        case .lbStrategy: "lb.strategy"
        case .lbBackendCount: "lb.backend_count"
        case .lbHealthyCount: "lb.healthy_count"
        case .lbSelectedBackend: "lb.selected_backend"
        case .connectionFromPool: "connection.from_pool"
        case .connectionID: "connection.id"
        case .poolOutcome: "pool.outcome"
        case .poolIdleCount: "pool.idle_count"
        case .poolActiveCount: "pool.active_count"
        case .dnsHostname: "dns.hostname"
        case .dnsAnswers: "dns.answers"
        case .dnsCached: "dns.cached"
        case .errorType: "error.type"
        case .retryReason: "retry.reason"
        case .retryAttempt: "retry.attempt"
        case .retryVerdict: "retry.verdict"
        case .failures: "failures"
        case .workerSignal: "worker.signal"
        case .workerLastPhase: "worker.last_phase"
        case .tlsServerName: "tls.server_name"
        case .tlsCipher: "tls.cipher"
        case .tlsALPN: "tls.alpn"
        case .tlsVersion: "tls.protocol.version"
        case .tlsResumed: "tls.resumed"
        case .httpBodyLength: "http.body.length"
        case .httpBodyBytesWritten: "http.body.bytes_written"
        case .h2RetryCount: "h2.retry_count"
        case .h2StreamID: "h2.stream_id"
        case .h2StreamsActive: "h2.streams_active"
        case .h2MaxConcurrentStreams: "h2.max_concurrent_streams"
        case .h2InitialWindowSize: "h2.initial_window_size"
        case .h2ErrorCode: "h2.error_code"
        case .h2LastStreamID: "h2.last_stream_id"
        case .h2DebugData: "h2.debug_data"
        case .h2Processed: "h2.processed"
        case .h2ResetBy: "h2.reset_by"
        case .connectionTLS: "connection.tls"
        case .connectionRequestsStarted: "connection.requests_started"
        case .connectionRequestsAnswered: "connection.requests_answered"
        case .connectionBytesSent: "connection.bytes_sent"
        case .connectionBytesReceived: "connection.bytes_received"
        case .connectionCloseReason: "connection.close_reason"
        case .h2SettingsCount: "h2.settings_count"
        case .h2GoawayCount: "h2.goaway_count"
        case .h2PingCount: "h2.ping_count"
        case .h2PingRTT: "h2.ping_rtt_us"
        case .h2PingRTTMin: "h2.ping_rtt_min_us"
        case .h2PingRTTMax: "h2.ping_rtt_max_us"
        }
    }
}
