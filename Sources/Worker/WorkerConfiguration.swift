import Logging
import ShmRing

/// Everything a worker is told before it is forked. Values are checked by whoever builds them.
public struct WorkerConfiguration: Sendable {
    public var backends: [Backend]
    public var limits = Limits()
    public var timeouts = Timeouts()
    public var pool = PoolLimits()
    public var health = HealthPolicy()
    /// How often one request is tried at most, the first time included.
    public var attemptsMax = 3
    /// Whether each request writes its span tree.
    public var isTracing = false
    /// Whether connections to backends have traces of their own, where requests have.
    public var tracesConnections = true
    public var accessLog: AccessLog?
    /// Nil without TLS listeners.
    public var tlsServer: TLSServer?
    /// The port on which TLS is spoken. Workers know their listeners by it, however they came to them.
    public var tlsPort: UInt16?
    /// Nil without https backends.
    public var tlsClient: TLSClient?

    public init(backends: [Backend]) {
        self.backends = backends
    }

    /// One server that requests may go to.
    public struct Backend: Sendable {
        /// `host:port` or `unix:/path`, as people and traces name it.
        public var name: String
        /// The host alone when it is a name that was resolved; nil for a literal address or a path.
        public var hostname: String?
        /// Where to connect, in the resolver's order; never empty.
        public var addresses: [SocketAddress]
        /// Connections of one worker to it; nil: what `pool` says.
        public var connectionsMax: Int?
        /// Whether it is spoken to through TLS.
        public var isSecure: Bool
        /// Spoken to in HTTP/2, which it is known to understand.
        public var isHTTP2 = false

        public init(name: String, hostname: String?, addresses: [SocketAddress], isSecure: Bool = false) {
            precondition(!addresses.isEmpty, "backend \(name) without an address")
            self.name = name
            self.hostname = hostname
            self.addresses = addresses
            self.isSecure = isSecure
        }
    }

    /// What a client or a backend may send at most.
    public struct Limits: Sendable {
        public var requestHeadBytesMax = 32 * 1024
        public var requestFieldsMax = 128
        public var requestTargetBytesMax = 8 * 1024
        public var responseHeadBytesMax = 64 * 1024
        /// 0: unlimited.
        public var requestBodyBytesMax = 0
        /// Client connections of one worker.
        public var connectionsMax = 8 * 1024
        /// Requests on one client connection, 0: unlimited.
        public var requestsPerConnectionMax = 0
        /// Streams that a client may have open on one HTTP/2 connection.
        public var http2StreamsMax = 128

        public init() {}
    }

    /// All in nanoseconds.
    public struct Timeouts: Sendable {
        public var handshakeNs: UInt64 = 10_000_000_000
        public var requestHeadNs: UInt64 = 10_000_000_000
        public var keepAliveNs: UInt64 = 60_000_000_000
        public var clientBodyNs: UInt64 = 30_000_000_000
        /// How long a client may read nothing while there is something for it.
        public var clientStallNs: UInt64 = 60_000_000_000
        /// How long the answer to a client that closed its sending side may take to begin.
        public var halfCloseNs: UInt64 = 2_000_000_000
        public var connectNs: UInt64 = 2_000_000_000
        public var responseHeadNs: UInt64 = 60_000_000_000
        public var upstreamStallNs: UInt64 = 60_000_000_000
        public var upstreamIdleNs: UInt64 = 30_000_000_000
        /// How long the end of a stream may take to follow the last byte of its response.
        public var streamEndNs: UInt64 = 500_000_000
        /// How long an HTTP/2 connection to a backend may be silent before it is asked for a sign of life.
        public var upstreamPingNs: UInt64 = 15_000_000_000
        /// How long a backend has to answer a PING.
        public var pingAnswerNs: UInt64 = 5_000_000_000
        /// How long nothing may come of the rest of a request over HTTP/2, which is thrown away, once its answer is out.
        public var discardNs: UInt64 = 2_000_000_000
        /// How long a backend may leave the SETTINGS of an HTTP/2 connection without an acknowledgement.
        public var settingsAnswerNs: UInt64 = 10_000_000_000
        /// How long a backend that has answered HTTP_1_1_REQUIRED is spoken to in HTTP/1.1, before HTTP/2 is tried again.
        public var http1PauseNs: UInt64 = 300_000_000_000
        public var tunnelIdleNs: UInt64 = 3_600_000_000_000
        public var drainNs: UInt64 = 30_000_000_000

        public init() {}
    }

    /// Upstream connections of one worker to one backend.
    public struct PoolLimits: Sendable {
        public var connectionsMax = 4096
        public var idleMax = 1024
        /// Requests that may wait for a connection.
        public var waitersMax = 1024
        public var waitNs: UInt64 = 1_000_000_000
        /// HTTP/2 connections of one worker to one backend.
        public var http2ConnectionsMax = 8
        /// Age at which an HTTP/2 connection gets no more streams, 0: never.
        public var connectionAgeNs: UInt64 = 0
        /// Bytes of a request's body that are kept for another attempt.
        public var retryBufferBytes = 64 * 1024

        public init() {}
    }

    /// When a backend is taken out and how it comes back.
    public struct HealthPolicy: Sendable {
        public var failuresMax = 3
        public var pauseNsMin: UInt64 = 1_000_000_000
        public var pauseNsMax: UInt64 = 30_000_000_000

        public init() {}
    }

    /// Where the access log goes.
    public struct AccessLog: Sendable {
        /// Open for appending; stays the caller's.
        public var descriptor: Int32
        public var isJSON: Bool

        public init(descriptor: Int32, isJSON: Bool) {
            self.descriptor = descriptor
            self.isJSON = isJSON
        }
    }
}

/// What one worker process inherits from the master.
public struct WorkerInheritance {
    /// Number of the slot, from 0: ring, listener and `lb.worker`.
    public var slot: Int
    /// Listening sockets to accept from; they stay open in the master.
    public var listeners: [Int32]
    /// This child's end of its control channel.
    public var control: Int32
    public var generation: UInt32
    /// Nil when tracing is off.
    public var segment: SpanSegment?
    public var logger: Logger
    /// Where this worker says that its loop turns; nil: nobody looks.
    public var status: StatusPlace?
    /// How long the loop may rest at most, so that a worker that rests is told from one that hangs.
    public var heartbeatNs: UInt64 = 1_000_000_000
    /// Called once, when the worker stops taking new clients.
    public var drainBegan: (() -> Void)?
    /// The read end of the `ConnectionInbox` for connections that another worker hands over; nil: there is none.
    public var inbox: Int32?
    /// How many processes have filled this slot before.
    public var incarnation: UInt32

    public init(
        slot: Int, listeners: [Int32], control: Int32, generation: UInt32, segment: SpanSegment?, logger: Logger,
        inbox: Int32? = nil, incarnation: UInt32 = 0
    ) {
        self.slot = slot
        self.listeners = listeners
        self.control = control
        self.generation = generation
        self.segment = segment
        self.logger = logger
        self.inbox = inbox
        self.incarnation = incarnation
    }
}
