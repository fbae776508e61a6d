/// Why a connection to a backend ended: `connection.close_reason`. Few, so that they can be grouped by.
enum CloseReason: UInt8, Equatable, Sendable {
    // It never carried a request, or should not have.
    case connectFailed, tlsFailure, settingsTimeout
    // The backend ended it, or did what cannot go on.
    case peerClosed, reset, goaway, connectionClose, protocolError, responseTimeout, pingTimeout
    case http1Required
    // This side ended it.
    case idleTimeout, maxAge, streamIDsExhausted, poolFull, replaced, requestAbandoned, tunnelEnded, drain, shutdown

    var text: StaticString {
        switch self {
        case .connectFailed: "connect_failed"
        case .tlsFailure: "tls_failure"
        case .settingsTimeout: "settings_timeout"
        case .peerClosed: "peer_closed"
        case .reset: "reset"
        case .goaway: "goaway"
        case .connectionClose: "connection_close"
        case .protocolError: "protocol_error"
        case .responseTimeout: "response_timeout"
        case .pingTimeout: "ping_timeout"
        case .http1Required: "http_1_1_required"
        case .idleTimeout: "idle_timeout"
        case .maxAge: "max_age"
        case .streamIDsExhausted: "stream_ids_exhausted"
        case .poolFull: "pool_full"
        case .replaced: "replaced"
        case .requestAbandoned: "request_abandoned"
        case .tunnelEnded: "tunnel_ended"
        case .drain: "drain"
        case .shutdown: "shutdown"
        }
    }

    /// What ended the connection when `error` ended the attempt that had it, or its making.
    init(_ error: ErrorType, of connection: UpstreamConnection) {
        switch error {
        case .connectRefused, .connectFailed, .resourceExhausted: self = .connectFailed
        case .connectTimeout:
            self = connection.isMaking ? .settingsTimeout : connection.isHandshaking ? .tlsFailure : .connectFailed
        case .tlsFailure: self = .tlsFailure
        case .upstreamTimeout: self = .responseTimeout
        case .upstreamReset: self = .reset
        case .upstreamClosed: self = .peerClosed
        case .upstreamProtocolError: self = .protocolError
        default: self = .requestAbandoned
        }
    }
}
