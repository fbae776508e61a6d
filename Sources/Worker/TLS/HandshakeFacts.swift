/// What the handshake of one attempt came to, for its span. Made only where a request made the connection.
struct HandshakeFacts {
    /// Number of the attempt, from 0.
    let attempt: Int
    let serverName: String
    let cipher: String
    let version: String
    let applicationProtocol: String
    let isResumed: Bool
    /// OpenSSL's reason where it failed.
    let failure: String?

    init(
        attempt: Int, serverName: String = "", cipher: String = "", version: String = "",
        applicationProtocol: String = "", isResumed: Bool = false, failure: String? = nil
    ) {
        self.attempt = attempt
        self.serverName = serverName
        self.cipher = cipher
        self.version = version
        self.applicationProtocol = applicationProtocol
        self.isResumed = isResumed
        self.failure = failure
    }

    init(_ session: TLSSession, attempt: Int, failure: String?) {
        let isDone = failure == nil
        self.init(
            attempt: attempt, serverName: session.serverName, cipher: isDone ? session.cipher : "",
            version: isDone ? session.version : "", applicationProtocol: isDone ? session.applicationProtocol : "",
            isResumed: isDone && session.isResumed, failure: failure)
    }
}
