// What can go wrong with a request, in the words of a trace, and what the client is told.

/// Values of `error.type`: few, so that they can be grouped by.
enum ErrorType: UInt8, Equatable, Sendable {
    // The upstream side.
    case connectRefused, connectTimeout, connectFailed, tlsFailure, upstreamTimeout, upstreamReset, upstreamClosed
    case upstreamProtocolError
    // This proxy's own limits.
    case noHealthyBackend, poolQueueFull, poolQueueTimeout, resourceExhausted, drainTimeout
    // The downstream side.
    case clientClosed, clientTimeout, requestTimeout, protocolError, uriTooLong, headTooLarge, bodyTooLarge
    case unknownTransferCoding, unsupportedVersion, methodNotAllowed, plainHTTPOnTLSPort
    case upgradeUnsupported

    var text: StaticString {
        switch self {
        case .connectRefused: "connect_refused"
        case .connectTimeout: "connect_timeout"
        case .connectFailed: "connect_failed"
        case .tlsFailure: "tls_failure"
        case .upstreamTimeout: "upstream_timeout"
        case .upstreamReset: "upstream_reset"
        case .upstreamClosed: "upstream_closed"
        case .upstreamProtocolError: "upstream_protocol_error"
        case .noHealthyBackend: "no_healthy_backend"
        case .poolQueueFull: "pool_queue_full"
        case .poolQueueTimeout: "pool_queue_timeout"
        case .resourceExhausted: "resource_exhausted"
        case .drainTimeout: "drain_timeout"
        case .clientClosed: "client_closed"
        case .clientTimeout: "client_timeout"
        case .requestTimeout: "request_timeout"
        case .protocolError: "protocol_error"
        case .uriTooLong: "uri_too_long"
        case .headTooLarge: "head_too_large"
        case .bodyTooLarge: "body_too_large"
        case .unknownTransferCoding: "unknown_transfer_coding"
        case .unsupportedVersion: "unsupported_version"
        case .methodNotAllowed: "method_not_allowed"
        case .plainHTTPOnTLSPort: "plain_http_on_tls_port"
        case .upgradeUnsupported: "upgrade_unsupported"
        }
    }

    /// A sentence for people, the description of a span's status.
    var sentence: StaticString {
        switch self {
        case .connectRefused: "the backend refused the connection"
        case .connectTimeout: "the backend did not accept the connection in time"
        case .connectFailed: "the connection to the backend could not be made"
        case .tlsFailure: "the TLS handshake with the backend failed"
        case .upstreamTimeout: "the backend did not answer in time"
        case .upstreamReset: "the backend reset the stream or the connection"
        case .upstreamClosed: "the backend closed the connection too early"
        case .upstreamProtocolError: "the backend sent what is not a valid HTTP/1.1 response"
        case .noHealthyBackend: "no backend is healthy"
        case .poolQueueFull: "too many requests wait for a connection to the backend"
        case .poolQueueTimeout: "no connection to the backend became free in time"
        case .resourceExhausted: "the proxy has no descriptors left"
        case .drainTimeout: "the worker stopped before the request was done"
        case .clientClosed: "the client went away"
        case .clientTimeout: "the client neither read nor sent in time"
        case .requestTimeout: "the request's head did not arrive in time"
        case .protocolError: "the request is not valid HTTP, or can be read two ways"
        case .uriTooLong: "the request target is too long"
        case .headTooLarge: "the request head is too large"
        case .bodyTooLarge: "the request body is too large"
        case .unknownTransferCoding: "the request uses a transfer coding other than chunked"
        case .unsupportedVersion: "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here"
        case .methodNotAllowed: "CONNECT is not served"
        case .plainHTTPOnTLSPort: "this port speaks TLS; use https"
        case .upgradeUnsupported: "the backend opens no WebSocket here"
        }
    }

    /// Whether this is a failure to connect, to answer or to answer in time, which is what a backend is
    /// taken out for. A single request can provoke anything else.
    var countsAgainstBackend: Bool {
        switch self {
        case .connectRefused, .connectTimeout, .connectFailed, .tlsFailure, .upstreamTimeout, .upstreamReset,
            .upstreamClosed:
            true
        case .upstreamProtocolError, .noHealthyBackend, .poolQueueFull, .poolQueueTimeout, .resourceExhausted,
            .drainTimeout, .clientClosed, .clientTimeout, .requestTimeout, .protocolError, .uriTooLong, .headTooLarge,
            .bodyTooLarge, .unknownTransferCoding, .unsupportedVersion, .methodNotAllowed, .plainHTTPOnTLSPort,
            .upgradeUnsupported:
            false
        }
    }

    /// The status a client gets when nothing of a response has gone out; nil when there is nobody to tell.
    var status: Int? {
        switch self {
        case .connectRefused, .connectFailed, .tlsFailure, .upstreamReset, .upstreamClosed, .upstreamProtocolError: 502
        case .connectTimeout, .upstreamTimeout: 504
        case .noHealthyBackend, .poolQueueFull, .poolQueueTimeout, .resourceExhausted, .drainTimeout: 503
        case .clientClosed: nil
        case .clientTimeout, .requestTimeout: 408
        case .protocolError, .plainHTTPOnTLSPort: 400
        case .uriTooLong: 414
        case .headTooLarge: 431
        case .bodyTooLarge: 413
        case .unknownTransferCoding, .upgradeUnsupported: 501
        case .unsupportedVersion: 505
        case .methodNotAllowed: 405
        }
    }
}

extension RequestRefusal {
    var errorType: ErrorType {
        switch self {
        case .malformed, .ambiguousFraming: .protocolError
        case .targetTooLong: .uriTooLong
        case .headTooLarge, .tooManyFields: .headTooLarge
        case .unknownTransferCoding: .unknownTransferCoding
        case .unsupportedVersion: .unsupportedVersion
        case .methodNotAllowed: .methodNotAllowed
        }
    }
}
