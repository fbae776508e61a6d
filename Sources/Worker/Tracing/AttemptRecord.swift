/// What one attempt at a backend was like, kept as numbers until the tree is written. Times are monotonic
/// nanoseconds, 0 where something did not happen.
struct AttemptRecord {
    enum PoolOutcome: UInt8 {
        case none, reused, created, waited

        var text: StaticString {
            switch self {
            case .none: "none"
            case .reused: "reused"
            case .created: "created"
            case .waited: "waited"
            }
        }
    }

    /// Index of the chosen backend; -1 when none could be chosen.
    var endpoint = -1
    var healthyCount = 0
    var selectionStartNs: UInt64 = 0
    var selectionEndNs: UInt64 = 0
    var poolOutcome = PoolOutcome.none
    var idleCount = 0
    var activeCount = 0
    var acquireEndNs: UInt64 = 0
    var connectStartNs: UInt64 = 0
    var connectEndNs: UInt64 = 0
    /// When TLS began and ended; 0 without it.
    var handshakeStartNs: UInt64 = 0
    var handshakeEndNs: UInt64 = 0
    var addressIndex = 0
    /// Number of the connection, 0 before there is one.
    var connection: UInt64 = 0
    /// When the connection was usable, or could not be had.
    var connectionEndNs: UInt64 = 0
    var spanID: UInt64 = 0
    var requestStartNs: UInt64 = 0
    var requestEndNs: UInt64 = 0
    var status = 0
    var isTrial = false
    var error: ErrorType?
    var retry: RetryPolicy.Reason?
    var failedAtNs: UInt64 = 0
    /// Failures in a row when this attempt took its backend out, else 0.
    var markedUnhealthyAfter = 0
    var http2 = HTTP2Attempt()
    /// The request can go over HTTP/1.1 alone, and HTTP/2 is not offered for its connection.
    var mustBeHTTP1 = false

    /// The making of a connection ended, well or not.
    mutating func connectingEnded(atNs: UInt64) {
        connectionEndNs = atNs
        guard http2.handshakeStartNs == 0 else { return }
        if handshakeStartNs > 0 { handshakeEndNs = atNs } else { connectEndNs = atNs }
    }
}

/// What belongs to an attempt over HTTP/2 alone.
struct HTTP2Attempt {
    /// The attempt went to a backend that is spoken to in HTTP/2.
    var isUsed = false
    /// Its connection is counted in the pool for HTTP/2.
    var isPooled = false
    /// The request opens a WebSocket by extended CONNECT.
    var opensTunnel = false
    /// Preface out, and the server's SETTINGS in; 0 unless this attempt made the connection.
    var handshakeStartNs: UInt64 = 0
    var handshakeEndNs: UInt64 = 0
    var peerSettings = HTTP2Session.PeerSettings()
    /// 0 before the request went out.
    var streamID: Int32 = 0
    /// Streams on the connection when this one was opened, itself included.
    var streamsActive = 0
    /// Body bytes that came in.
    var bodyBytes = 0
    /// When the stream was reset, 0 when it was not.
    private(set) var resetAtNs: UInt64 = 0
    private(set) var resetCode: UInt32 = 0
    private(set) var isResetByPeer = false

    /// The first reset is the one that counts.
    mutating func noteReset(code: UInt32, isByPeer: Bool, atNs: UInt64) {
        guard resetAtNs == 0 else { return }
        resetAtNs = atNs
        resetCode = code
        isResetByPeer = isByPeer
    }
}

/// A GOAWAY that arrived while a request had a stream on the connection.
struct GoawayNote {
    /// Number of the attempt, from 1.
    var attempt: Int
    /// 0 before there was a stream.
    var streamID: Int32
    var goaway: HTTP2Session.Goaway
    var atNs: UInt64
    /// The request was on its way out, and did not leave because of it.
    var wasKeptBack = false

    /// It is certain that the server has not processed the request.
    var isUnprocessed: Bool { streamID == 0 || streamID > goaway.lastStreamID || wasKeptBack }
}
