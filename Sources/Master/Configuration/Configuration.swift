import Exporter
import ShmRing
import Worker

/// Everything that was asked for, checked, completed and resolved. Nothing is open yet.
///
/// Made from the command line, the environment and the resolver before anything is forked; every failure
/// that these can cause has happened when it exists.
struct Configuration {
    /// Finds the addresses of a name; `NameLookup.addresses` outside of tests.
    typealias Resolver = (_ host: String, _ port: UInt16) throws(StartFailure) -> [SocketAddress]

    /// Where the access log goes; opened by `AccessLogFile`.
    enum AccessLogTarget: Equatable {
        case standardOutput
        case file(path: String)
    }

    /// The first place to listen: for plain HTTP, where there is such a place.
    let listen: ListenAddress
    /// Where HTTPS is served, nil when it is not.
    let tlsListen: ListenAddress?
    /// Whether `listen` is the place for TLS, and there is no other. Two places with port 0 look the same.
    let isTLSAlone: Bool
    let workerCount: Int
    /// The CPU of each worker slot; nil when workers are not pinned.
    let pinnedCPUs: [Int32]?
    /// Without its access log, which needs an open file.
    let worker: WorkerConfiguration
    /// Nil when nothing is traced.
    let exporter: ExporterConfiguration?
    let spanBufferBytes: Int
    let accessLog: AccessLogTarget?
    let log: LogSettings
    let lifecycle: LifecyclePolicy
    let service: ServicePolicy
    /// Who the children run as; nil: as the master.
    let credentials: Credentials?
    /// What does not stop the start but somebody should know.
    let warnings: [String]
    /// Whether `--check` asks only whether this would run.
    let isCheck: Bool
    /// The file of `--config`, and the text that was found in it.
    let configPath: String?
    let fileText: String?

    /// - Parameters:
    ///   - fileText: What stood in the file that `options` were completed from.
    /// - Throws: The first thing that cannot be.
    init(
        _ options: CommandLineOptions, _ surroundings: Surroundings, fileText: String? = nil, resolve: Resolver
    ) throws(StartFailure) {
        // First: what changes while it is read is noticed afterwards.
        service = try Self.service(options, surroundings, fileText: fileText)
        let tracing = try TracingPlan(options.tracing, surroundings)
        let tls = try TLSPlan(options)
        tlsListen = tls.listen
        listen = Self.listen(options, tls)
        isTLSAlone = options.serving.port == nil && tls.listen != nil
        let cpus = surroundings.availableCPUs
        let workerCount = options.serving.workers == 0 ? cpus.count : options.serving.workers
        self.workerCount = workerCount
        pinnedCPUs = options.serving.pinWorkers ? (0..<workerCount).map { cpus[$0 % cpus.count] } : nil
        accessLog = try Self.accessLogTarget(options.logging.accessLog)
        log = LogSettings(level: options.logging.logLevel, format: options.logging.logFormat)
        exporter = tracing.exporter
        spanBufferBytes = options.tracing.spanBuffer
        lifecycle = Self.lifecycle(options.lifecycle)
        warnings = tracing.warnings + tls.warnings
        isCheck = options.check
        credentials = try Credentials(user: options.lifecycle.user, group: options.lifecycle.group)
        configPath = options.config
        self.fileText = fileText
        worker = try Self.worker(options, tls, isTracing: tracing.exporter != nil, resolve: resolve)
    }

    /// Every place to listen; the one for TLS is the last.
    var listenAddresses: [ListenAddress] {
        guard let tlsListen, !isTLSAlone else { return [listen] }
        return [listen, tlsListen]
    }

    /// Without --port, HTTPS is all that is served where it is.
    private static func listen(_ options: CommandLineOptions, _ tls: TLSPlan) -> ListenAddress {
        if options.serving.port == nil, let listen = tls.listen { return listen }
        let port = options.serving.port ?? ServingOptions.portByDefault
        return ListenAddress(ip: options.serving.address, port: UInt16(port))
    }

    private static func worker(
        _ options: CommandLineOptions, _ tls: TLSPlan, isTracing: Bool, resolve: Resolver
    ) throws(StartFailure) -> WorkerConfiguration {
        var worker = WorkerConfiguration(
            backends: try backends(
                options.serving.backend, offersHTTP2: options.upstreamTLS.upstreamAlpn.contains("h2"), resolve: resolve)
        )
        worker.limits = limits(options.limits)
        worker.timeouts = timeouts(options)
        worker.pool = pool(options.upstream)
        worker.attemptsMax = options.limits.maxAttempts
        worker.isTracing = isTracing
        worker.tracesConnections = options.tracing.connectionTraces
        worker.tlsServer = tls.server
        worker.tlsClient = tls.client
        return worker
    }

    private static func backends(
        _ texts: [BackendText], offersHTTP2: Bool, resolve: Resolver
    ) throws(StartFailure) -> [WorkerConfiguration.Backend] {
        guard !texts.isEmpty else {
            throw .usage(
                "there is nothing to balance to; add --backend HOST:PORT, once for each server, or "
                    + "\"backends\" to the file of --config")
        }
        return try texts.map { (text) throws(StartFailure) in
            var backend: WorkerConfiguration.Backend =
                switch text.target {
                case .address(let address): .init(name: text.name, hostname: nil, addresses: [address])
                case .name(let host, let port):
                    .init(name: text.name, hostname: host, addresses: try resolve(host, port))
                }
            backend.isSecure = text.isSecure
            backend.connectionsMax = text.connectionsMax
            backend.isHTTP2 = text.isHTTP2 || (text.isSecure && offersHTTP2)
            return backend
        }
    }

    private static func limits(_ options: LimitOptions) -> WorkerConfiguration.Limits {
        var limits = WorkerConfiguration.Limits()
        limits.requestHeadBytesMax = options.maxRequestHead
        limits.requestFieldsMax = options.maxRequestFields
        limits.requestTargetBytesMax = options.maxRequestTarget
        limits.responseHeadBytesMax = options.maxResponseHead
        limits.requestBodyBytesMax = options.maxBody
        limits.connectionsMax = options.maxConnections
        limits.requestsPerConnectionMax = options.maxRequestsPerConnection
        limits.http2StreamsMax = options.h2MaxConcurrentStreams
        return limits
    }

    private static func timeouts(_ options: CommandLineOptions) -> WorkerConfiguration.Timeouts {
        var timeouts = WorkerConfiguration.Timeouts()
        timeouts.handshakeNs = options.tls.tlsHandshakeTimeout
        timeouts.requestHeadNs = options.timeouts.requestHeadTimeout
        timeouts.keepAliveNs = options.timeouts.keepAliveTimeout
        timeouts.clientBodyNs = options.timeouts.clientBodyTimeout
        timeouts.clientStallNs = options.timeouts.clientStallTimeout
        timeouts.halfCloseNs = options.timeouts.halfCloseTimeout
        timeouts.connectNs = options.timeouts.connectTimeout
        timeouts.responseHeadNs = options.timeouts.responseHeadTimeout
        timeouts.upstreamStallNs = options.timeouts.upstreamStallTimeout
        timeouts.upstreamIdleNs = options.upstream.upstreamIdleTimeout
        timeouts.upstreamPingNs = options.upstream.upstreamPingInterval
        timeouts.pingAnswerNs = options.upstream.upstreamH2PingTimeout
        timeouts.settingsAnswerNs = options.upstream.upstreamH2SettingsTimeout
        timeouts.http1PauseNs = options.upstream.upstreamH2Pause
        timeouts.tunnelIdleNs = options.timeouts.tunnelIdleTimeout
        timeouts.drainNs = options.lifecycle.drainTimeout
        return timeouts
    }

    private static func lifecycle(_ options: LifecycleOptions) -> LifecyclePolicy {
        LifecyclePolicy(
            readyTimeoutNs: options.readyTimeout, drainingGenerationsMax: options.maxDraining,
            workerStallNs: options.workerStallTimeout)
    }

    private static func service(
        _ options: CommandLineOptions, _ surroundings: Surroundings, fileText: String?
    ) throws(StartFailure) -> ServicePolicy {
        guard options.lifecycle.watchConfig else { return ServicePolicy(pidFile: options.lifecycle.pidFile) }
        var watched = TLSPlan.paths(options).map { WatchedFile(path: $0) }
        // What is wrong with these costs traces, and not the start.
        watched += TracingPlan.paths(options.tracing, surroundings).map { WatchedFile(path: $0) }.filter(\.hasFolder)
        if let path = options.config, let fileText { watched.append(WatchedFile(path: path, text: fileText)) }
        guard !watched.isEmpty else {
            throw .usage("--watch-config has nothing to watch; add --config FILE, or leave it out")
        }
        return ServicePolicy(pidFile: options.lifecycle.pidFile, watched: watched)
    }

    private static func pool(_ options: UpstreamOptions) -> WorkerConfiguration.PoolLimits {
        var pool = WorkerConfiguration.PoolLimits()
        pool.connectionsMax = options.upstreamMaxConnections
        pool.idleMax = options.upstreamMaxIdle
        pool.waitersMax = options.upstreamQueue
        pool.waitNs = options.upstreamQueueTimeout
        pool.http2ConnectionsMax = options.upstreamH2MaxConnections
        pool.connectionAgeNs = options.upstreamMaxConnectionAge
        pool.retryBufferBytes = options.retryBuffer
        return pool
    }

    private static func accessLogTarget(_ path: String?) throws(StartFailure) -> AccessLogTarget? {
        guard let path else { return nil }
        guard !path.isEmpty else {
            throw .usage("--access-log has an empty path; name a file, or - for standard output")
        }
        return path == "-" ? .standardOutput : .file(path: path)
    }
}
