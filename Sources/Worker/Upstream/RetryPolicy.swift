/// Decides whether a failed attempt is followed by another. A pure function: it knows what was sent, not
/// how (RFC 9110 §9.2.2 on what may be sent twice).
struct RetryPolicy: Sendable {
    enum Reason: UInt8, Sendable {
        case connectFailed
        case connectionClosedBeforeResponse
        /// The server will not process the stream: its number is above the last one of a GOAWAY.
        case goaway
        /// The server has reset the stream without processing it.
        case refusedStream
        /// The server wants the request over HTTP/1.1 (RFC 9113 §7).
        case http11Required

        var text: StaticString {
            switch self {
            case .connectFailed: "connect_failed"
            case .connectionClosedBeforeResponse: "connection_closed_before_response"
            case .goaway: "goaway"
            case .refusedStream: "refused_stream"
            case .http11Required: "http_1_1_required"
            }
        }
    }

    enum Denial: UInt8, Sendable {
        case bodyNotReplayable
        case notIdempotent
        case attemptsExhausted
        case responseStarted
        case budgetExhausted

        var text: StaticString {
            switch self {
            case .bodyNotReplayable: "body_not_replayable"
            case .notIdempotent: "not_idempotent"
            case .attemptsExhausted: "attempts_exhausted"
            case .responseStarted: "response_started"
            case .budgetExhausted: "budget_exhausted"
            }
        }
    }

    enum Verdict: Equatable, Sendable {
        case retry(Reason)
        case denied(Reason, Denial)
        /// Not the kind of failure that another attempt could mend.
        case final
    }

    /// What is known about the attempt that failed.
    struct Attempt: Equatable, Sendable {
        var method = Method.get
        /// Attempts made so far, this one included.
        var number = 1
        /// The failure came while the connection was being made.
        var isConnectFailure = false
        /// The connection had served a request before.
        var wasReused = false
        /// The backend ended or reset the connection, as opposed to a timeout or bad bytes.
        var connectionEnded = false
        /// Bytes of this request that the kernel took.
        var bytesSent = 0
        /// The body, as far as it has been read, is still whole in the buffer (true without a body).
        var isBodyReplayable = true
        /// Some of the response has arrived.
        var responseStarted = false
        /// Why it is certain that the server has not processed the request (RFC 9113 §8.7): then it may be sent
        /// again whatever its method.
        var unprocessed: Reason?

        /// The server said that it would not process the request, which is no failure of it. To end a connection on
        /// which a request has not left yet may be one.
        var isRefusal: Bool { unprocessed != nil && unprocessed != .connectionClosedBeforeResponse }

        /// The backend ended a kept connection between two requests, which says nothing about its health.
        var isStaleConnection: Bool { wasReused && connectionEnded && !isConnectFailure && !responseStarted }
    }

    var attemptsMax = 3

    func verdict(_ attempt: Attempt) -> Verdict {
        let reason =
            attempt.unprocessed ?? (attempt.isConnectFailure ? .connectFailed : .connectionClosedBeforeResponse)
        let isKnown = attempt.isConnectFailure || attempt.unprocessed != nil
        guard isKnown || (attempt.wasReused && attempt.connectionEnded) else { return .final }
        if attempt.responseStarted { return .denied(reason, .responseStarted) }
        let isUnseen = isKnown || attempt.bytesSent == 0
        guard isUnseen || attempt.method.isIdempotent else { return .denied(reason, .notIdempotent) }
        guard attempt.isBodyReplayable else { return .denied(reason, .bodyNotReplayable) }
        guard attempt.number < attemptsMax else { return .denied(reason, .attemptsExhausted) }
        return .retry(reason)
    }
}
