import Logging
import ShmRing

/// Everything that one worker works with, and the place where the sans-I/O parts meet the sockets.
///
/// The work itself is in extensions, a file a theme:
///
///     Proxy+Loop      events, deadlines, deferred work        Proxy+Requests   heads in, requests begin
///     Proxy+Accept    clients in                              Proxy+Dispatch   backend, connection, head out
///     Proxy+Bodies    both directions of the body             Proxy+Responses  heads back, requests end
///     Proxy+Failures  retry or answer                         Proxy+Answers    answers of our own
///     Proxy+Tunnel    after 101                               Proxy+Closing    connections end
///     Proxy+Drain     the worker leaves                       Proxy+Inbox      clients from another worker
///     Proxy+HTTP2     clients' carriers of streams            Proxy+HTTP2Upstream  backends' carriers
///     Proxy+TLS       handshakes                              Proxy+Connections  traces of backends' connections
///     Proxy+HTTP2Refusals   requests that were never served   Proxy+UpstreamVersion  HTTP/1.1 where it is wanted
///
/// One thread, no locks. Nothing here blocks.
final class Proxy {
    /// What may be waited for on a client's connection.
    enum DownstreamDeadline: UInt8, CaseIterable, Sendable {
        case handshake, requestHead, keepAlive, clientBody, clientStall, halfClose, poolWait, linger, tunnelIdle
        case drainPause
        /// The rest of requests that were answered early.
        case discard
    }

    /// What may be waited for on a backend's connection.
    enum UpstreamDeadline: UInt8, CaseIterable, Sendable {
        case connect, responseHead, stall, idle
        /// The end of a stream whose response is whole.
        case streamEnd
        /// Of a connection that carries streams: silence, and the answer to a PING.
        case ping, pingAnswer
        /// The acknowledgement of our SETTINGS.
        case settingsAnswer
        /// Room for the GOAWAY on a connection that nobody needs any more.
        case leaving
    }

    /// Work that an event leaves for later in the same turn, so that no call chain grows without bound.
    enum DeferredWork {
        case continueDownstream(slot: Int, generation: UInt32)
        case continueUpstream(slot: Int, generation: UInt32)
        case connectWaiter(PoolState.Waiter, Endpoint)
        case serveLine(Endpoint)
        case reacquire(PoolState.Waiter, Endpoint)
    }

    /// How long a closing connection is read on, and how much.
    static let lingerNs: UInt64 = 2_000_000_000
    static let lingerBytesMax = 1_048_576

    let configuration: WorkerConfiguration
    let slot: Int
    let generation: UInt32
    let logger: Logger
    let poller: Poller
    let requestParser: RequestParser
    let responseParser: ResponseParser
    let retryPolicy: RetryPolicy
    var retryBudget = RetryBudget()
    let tracer: Tracer?
    let accessLog: AccessLogWriter?

    var nowNs: UInt64 = 0
    /// Realtime less monotonic time, 0 until a request of this turn asks.
    var unixOffsetNs: UInt64 = 0
    let buffers = BufferPool()
    /// Clients' connections, and the streams on those that carry HTTP/2.
    let downstreams: SlotTable<DownstreamConnection>
    /// How many of them are streams, which count towards no limit of connections.
    var streamCount = 0
    let http2: HTTP2Context
    let streamObjects = StreamObjects()
    let upstreams: SlotTable<UpstreamConnection>
    let downstreamDeadlines: Deadlines<DownstreamDeadline>
    let upstreamDeadlines: Deadlines<UpstreamDeadline>
    var deferred: [DeferredWork] = []
    /// The deferred work that is being done; its storage changes places with `deferred`.
    var running: [DeferredWork] = []
    /// Work that waits for memory.
    var postponed: [DeferredWork] = []

    let endpoints: [Endpoint]
    var strategy = RoundRobin()
    var nextConnectionNumber: UInt64 = 1

    /// Field lines of the message that was parsed last, and whose they are.
    let table = FieldTable()
    var tableOwner: Exchange?
    /// Exchanges that wait for their next use, linked.
    var freeExchange: Exchange?
    var freeExchangeCount = 0

    var listeners: [Int32]
    let status: StatusPlace?
    let heartbeatNs: UInt64
    let drainBegan: (() -> Void)?
    var tlsOnPlainPort = LogPause()
    var unserved = UnservedRequests()
    var isAccepting = false
    /// When accepting may go on after descriptors ran out; 0 when it did not stop for that.
    var acceptAgainNs: UInt64 = 0
    var isDraining = false
    /// When the drain began, 0 before.
    var drainStartedNs: UInt64 = 0
    /// Until when a draining worker goes on accepting.
    var sweepEndNs: UInt64 = 0
    /// Where connections go that wait for a request; set while there is such a place.
    var successor: ConnectionInbox?
    var hasSuccessor = false
    /// Connections that went there.
    var handedOver = 0
    /// Where another worker's connections come from; nil when there is no such place.
    var inbox: ConnectionInbox?
    var isReadingInbox = false
    /// Somebody looks at the times of requests.
    let isTimed: Bool
    /// When the last lack of descriptors was logged.
    var exhaustionLoggedNs: UInt64 = 0
    var drainDeadlineNs: UInt64 = .max

    init(_ configuration: WorkerConfiguration, _ inheritance: WorkerInheritance) throws(Errno) {
        self.configuration = configuration
        slot = inheritance.slot
        generation = inheritance.generation
        logger = inheritance.logger
        listeners = inheritance.listeners
        inbox = inheritance.inbox.map { ConnectionInbox(owning: $0) }
        status = inheritance.status
        heartbeatNs = inheritance.heartbeatNs
        drainBegan = inheritance.drainBegan
        poller = try Poller()
        let limits = configuration.limits
        requestParser = RequestParser(
            limits: RequestParser.Limits(
                headBytesMax: limits.requestHeadBytesMax, targetBytesMax: limits.requestTargetBytesMax,
                fieldsMax: limits.requestFieldsMax))
        responseParser = ResponseParser(headBytesMax: limits.responseHeadBytesMax)
        retryPolicy = RetryPolicy(attemptsMax: configuration.attemptsMax)
        endpoints = Self.makeEndpoints(configuration)
        downstreams = SlotTable(capacity: Int(Int32.max))
        http2 = HTTP2Context(Self.http2Limits(configuration), buffers)
        upstreams = SlotTable(capacity: Int(Int32.max))
        let timeouts = configuration.timeouts
        downstreamDeadlines = Deadlines { kind in Self.durationNs(kind, timeouts, configuration.pool) }
        upstreamDeadlines = Deadlines { kind in Self.durationNs(kind, timeouts) }
        accessLog = configuration.accessLog.map { AccessLogWriter($0) }
        if configuration.isTracing, let segment = inheritance.segment {
            tracer = Tracer(
                producer: segment.producer(slot: inheritance.slot), worker: inheritance.slot,
                generation: inheritance.generation,
                inflight: segment.inflightTable(slot: inheritance.slot, incarnation: inheritance.incarnation),
                tracesConnections: configuration.tracesConnections)
        } else {
            tracer = nil
        }
        isTimed = tracer != nil || accessLog != nil
    }

    private static func http2Limits(_ configuration: WorkerConfiguration) -> HTTP2Context.Limits {
        var limits = HTTP2Context.Limits()
        limits.streamsMax = configuration.limits.http2StreamsMax
        limits.requestFieldBytesMax = configuration.limits.requestHeadBytesMax
        limits.responseFieldBytesMax = configuration.limits.responseHeadBytesMax
        limits.discardNs = configuration.timeouts.discardNs
        return limits
    }

    private static func makeEndpoints(_ configuration: WorkerConfiguration) -> [Endpoint] {
        let health = HealthState.Policy(
            failuresMax: configuration.health.failuresMax, pauseNsMin: configuration.health.pauseNsMin,
            pauseNsMax: configuration.health.pauseNsMax)
        return configuration.backends.enumerated().map { index, backend in
            let limits = PoolState.Limits(
                connectionsMax: backend.connectionsMax ?? configuration.pool.connectionsMax,
                idleMax: configuration.pool.idleMax, waitersMax: configuration.pool.waitersMax)
            let http2 = HTTP2PoolState.Limits(
                connectionsMax: configuration.pool.http2ConnectionsMax, waitersMax: configuration.pool.waitersMax)
            return Endpoint(
                index: index, backend, health: HealthState(health), pool: PoolState(limits),
                http2Pool: HTTP2PoolState(http2))
        }
    }

    private static func durationNs(
        _ kind: DownstreamDeadline, _ timeouts: WorkerConfiguration.Timeouts, _ pool: WorkerConfiguration.PoolLimits
    ) -> UInt64 {
        switch kind {
        case .handshake: timeouts.handshakeNs
        case .requestHead: timeouts.requestHeadNs
        case .keepAlive: timeouts.keepAliveNs
        case .clientBody: timeouts.clientBodyNs
        case .clientStall: timeouts.clientStallNs
        case .halfClose: timeouts.halfCloseNs
        case .poolWait: pool.waitNs
        case .linger: lingerNs
        case .tunnelIdle: timeouts.tunnelIdleNs
        case .drainPause: min(drainPauseNs, timeouts.drainNs)
        case .discard: timeouts.discardNs
        }
    }

    private static func durationNs(_ kind: UpstreamDeadline, _ timeouts: WorkerConfiguration.Timeouts) -> UInt64 {
        switch kind {
        case .connect: timeouts.connectNs
        case .responseHead: timeouts.responseHeadNs
        case .stall: timeouts.upstreamStallNs
        case .idle: timeouts.upstreamIdleNs
        case .streamEnd: timeouts.streamEndNs
        case .ping: min(timeouts.upstreamPingNs, timeouts.upstreamIdleNs)
        case .pingAnswer, .leaving: timeouts.pingAnswerNs
        case .settingsAnswer: timeouts.settingsAnswerNs
        }
    }

    /// The realtime of a moment of this turn. The two clocks are compared once a turn in which a request begins, so
    /// a clock that steps is noticed by the next one, and no request sees more than one comparison.
    func unixNs(at momentNs: UInt64) -> UInt64 {
        if unixOffsetNs == 0 { unixOffsetNs = Clock.realtimeNs() &- stampNs() }
        return momentNs &+ unixOffsetNs
    }

    /// The time for a span's edge or a log line: read anew where somebody will look at it.
    func stampNs() -> UInt64 {
        if isTimed { nowNs = Clock.monotonicNs() }
        return nowNs
    }
}
