import ArgumentParser
import Exporter
import Logging
import Worker

/// The command line, each value checked by itself. `Configuration` checks what concerns several and
/// completes it from the environment and the machine.
///
/// Times are kept in nanoseconds and sizes in bytes; a property is named after its flag.
struct CommandLineOptions: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: productName,
        abstract: "An HTTP load balancer that traces every request.",
        usage: """
            load_balancer --backend HOST:PORT [--backend HOST:PORT]... [options]
            load_balancer -p 8080 -b 127.0.0.1:9001 -b 127.0.0.1:9002 --otel-endpoint http://localhost:4318
            load_balancer --config FILE [options]
            """,
        discussion: """
            SIGTERM, SIGINT and SIGQUIT let requests in flight finish and deliver the spans, then exit with 0; \
            a second one ends everything at once, with 1. Times are decimal seconds; sizes are bytes, or KiB, \
            MiB, GiB with k, m, g.
            """,
        version: "\(productName) \(productVersion)"
    )

    @OptionGroup(title: "Serving") var serving: ServingOptions
    @OptionGroup(title: "Lifecycle") var lifecycle: LifecycleOptions
    @OptionGroup(title: "TLS with clients") var tls: TLSOptions
    @OptionGroup(title: "TLS with backends") var upstreamTLS: UpstreamTLSOptions
    @OptionGroup(title: "Tracing") var tracing: TracingOptions
    @OptionGroup(title: "Logging") var logging: LoggingOptions
    @OptionGroup(title: "Limits") var limits: LimitOptions
    @OptionGroup(title: "Timeouts") var timeouts: TimeoutOptions
    @OptionGroup(title: "Connections to backends") var upstream: UpstreamOptions

    @Option(
        help: ArgumentHelp(
            "JSON file, comments allowed, that says what is not said here; flags win over it", valueName: "file"))
    var config: String?

    @Flag(help: "Check everything, print what would run, and exit with 0, or 2 when it cannot run.")
    var check = false

    @Flag(help: "Print the configuration as a file for --config, flags and defaults included, and exit.")
    var printConfig = false

    /// Parses `arguments`, the program's name not among them.
    /// - Throws: `CommandLineEnd` for help and version as well as for errors.
    static func parsed(_ arguments: [String]) throws(CommandLineEnd) -> CommandLineOptions {
        do {
            return try parse(arguments)
        } catch {
            throw CommandLineEnd(error)
        }
    }

    /// What to write instead of a value that a flag refuses, or nil when it does not refuse it.
    static func mend(flag: String, value: String) -> String? {
        guard let failure = failure(of: "\(flag)=\(value)") else { return nil }
        // The value stands in the message in front of the mend, and may have anything in it.
        let opening = "The value '\(value)' is invalid for '"
        guard failure.message.hasPrefix(opening) else { return nil }
        let rest = failure.message.dropFirst(opening.count)
        return rest.firstRange(of: "': ").map { String(rest[$0.upperBound...]) }
    }

    private static func failure(of argument: String) -> StartFailure? {
        do throws(CommandLineEnd) {
            _ = try parsed([argument])
            return nil
        } catch {
            guard case .failure(let failure) = error else { return nil }
            return failure
        }
    }
}

/// What the command line came to when there is nothing to run.
enum CommandLineEnd: Error, Equatable {
    /// Help or the version was asked for.
    case text(String)
    case failure(StartFailure)

    init(_ error: any Error) {
        let message = CommandLineOptions.message(for: error)
        guard !CommandLineOptions.exitCode(for: error).isSuccess else {
            self = .text(message)
            return
        }
        // A value's error says what to write instead; the parser's own errors do not.
        let hasMend = message.contains("is invalid for")
        self = .failure(.usage(hasMend ? message : "\(message); see \(productName) --help"))
    }
}

struct ServingOptions: ParsableArguments {
    static let portByDefault = 8080

    @Option(
        name: .shortAndLong, count: 0...65535,
        "Port to listen on; 0 takes a free one (default: \(ServingOptions.portByDefault), none with --tls-port)")
    var port: Int?

    @Option(
        help: ArgumentHelp("IPv4 or IPv6 address to listen on (default: all of both)", valueName: "address"),
        transform: ListenAddress.parsedIP)
    var address: String?

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "A server: [http[s]://]HOST:PORT, h2c://HOST:PORT or unix:/PATH; port 443 is https; names are resolved at start. Repeatable.",
            valueName: "backend"),
        transform: BackendText.init)
    var backend: [BackendText] = []

    @Option(name: .shortAndLong, count: 1...512, "Worker processes", zero: "the CPUs this process may use")
    var workers = 0

    @Flag(
        inversion: .prefixedNo, exclusivity: .chooseLast,
        help: "Pin each worker to a CPU of its own, in the order of the affinity mask.")
    var pinWorkers = false
}

struct LifecycleOptions: ParsableArguments {
    private static let defaults = LifecyclePolicy()

    @Option(seconds: SecondsText.delayNs, "At shutdown, how long requests in flight may take to finish")
    var drainTimeout = WorkerConfiguration.Timeouts().drainNs

    @Option("How long new workers may take to be ready; a reload that takes longer is given up")
    var readyTimeout = LifecycleOptions.defaults.readyTimeoutNs

    @Option(count: 1...64, "Generations of workers that may be draining; the oldest beyond them is ended")
    var maxDraining = LifecycleOptions.defaults.drainingGenerationsMax

    @Option(
        seconds: SecondsText.delayNs, "A worker that shows no sign of life for so long is replaced; 0 turns that off")
    var workerStallTimeout = LifecycleOptions.defaults.workerStallNs

    @Flag(
        inversion: .prefixedNo, exclusivity: .chooseLast,
        help: "Reload when the file of --config, a certificate, key, CA or OCSP response changes.")
    var watchConfig = false

    @Option(help: ArgumentHelp("A file that holds the master's process id while it serves", valueName: "path"))
    var pidFile: String?

    @Option(
        help: ArgumentHelp(
            "Who the workers and the exporter run as: a name or a number; only root may ask for it", valueName: "user"))
    var user: String?

    @Option(help: ArgumentHelp("Their group (default: the user's own groups)", valueName: "group"))
    var group: String?
}

/// Where spans go.
enum ExporterKind: String, Choice {
    case otlp, console, none
}

/// `--otel-protocol`, as in the OTLP exporter specification.
enum CollectorProtocol: String, Choice {
    case protobuf = "http/protobuf"
    case json = "http/json"
}

struct TracingOptions: ParsableArguments {
    private static let defaults = ExporterConfiguration(
        destination: .console(isColoured: false), resource: .init(attributes: [], scopeName: "", scopeVersion: ""))

    @Option(
        help: ArgumentHelp(
            "The collector's base URL, such as http://localhost:4318; /v1/traces is appended. Without it nothing is traced.",
            valueName: "url"),
        transform: CollectorURL.init(base:))
    var otelEndpoint: CollectorURL?

    @Option(choice: "Encoding of what is posted")
    var otelProtocol = CollectorProtocol.protobuf

    @Option(
        help: ArgumentHelp(
            "Where spans go: \(choices(ExporterKind.self)) (default: otlp with an endpoint, else none)",
            valueName: "name"),
        transform: parseChoice)
    var otelExporter: ExporterKind?

    @Option(
        help: ArgumentHelp(
            "service.name of the spans (default: OTEL_SERVICE_NAME, else \(productName))", valueName: "name"),
        transform: Self.serviceName)
    var serviceName: String?

    @Option(count: 1...100_000, "Spans that wait before a batch goes out")
    var otelBatchSize = TracingOptions.defaults.batchSpansMin

    @Option(seconds: SecondsText.delayNs, "How long a span waits at most before its batch goes out")
    var otelBatchDelay = TracingOptions.defaults.batchDelayNs

    @Option(seconds: SecondsText.timeoutNs, "How long one post to the collector may take")
    var otelTimeout = TracingOptions.defaults.requestTimeoutNs

    @Option(bytes: 128 * 1024...1 << 30, "Memory for finished spans of each worker, rounded up to a power of two")
    var spanBuffer = 16 << 20

    @Flag(
        inversion: .prefixedNo, exclusivity: .chooseLast,
        help: "Trace connections to backends as well, each from connect to close, with links to them.")
    var connectionTraces = true

    @Sendable private static func serviceName(_ text: String) throws(BadValue) -> String {
        guard !text.isEmpty else { throw BadValue("the name of the service is empty") }
        return text
    }
}

struct LoggingOptions: ParsableArguments {
    @Option(choice: "Least severe level that is logged")
    var logLevel = Logger.Level.info

    @Option(choice: "Form of the log and of the access log")
    var logFormat = LogFormat.logfmt

    @Option(
        help: ArgumentHelp(
            "A line for each request to a file, or to standard output with - (default: off)", valueName: "path"))
    var accessLog: String?
}

struct LimitOptions: ParsableArguments {
    private static let defaults = WorkerConfiguration.Limits()

    @Option(bytes: 1024...1 << 20, "Request line and fields of a request")
    var maxRequestHead = LimitOptions.defaults.requestHeadBytesMax

    @Option(count: 1...1024, "Fields of a request")
    var maxRequestFields = LimitOptions.defaults.requestFieldsMax

    @Option(bytes: 64...1 << 20, "Request target")
    var maxRequestTarget = LimitOptions.defaults.requestTargetBytesMax

    @Option(bytes: 1024...1 << 20, "Status line and fields of a response")
    var maxResponseHead = LimitOptions.defaults.responseHeadBytesMax

    @Option(bytes: 0...1 << 50, "Body of a request; 0 sets no limit", zero: "no limit")
    var maxBody = LimitOptions.defaults.requestBodyBytesMax

    @Option(count: 1...1_000_000, "Client connections of each worker; more of them wait")
    var maxConnections = LimitOptions.defaults.connectionsMax

    @Option(count: 0...1_000_000_000, "Requests on one client connection; 0 sets no limit", zero: "no limit")
    var maxRequestsPerConnection = LimitOptions.defaults.requestsPerConnectionMax

    @Option(count: 1...10_000, "Streams that a client may have open on one HTTP/2 connection")
    var h2MaxConcurrentStreams = LimitOptions.defaults.http2StreamsMax

    @Option(count: 1...16, "How often a request is tried, the first time included")
    var maxAttempts = 3
}

struct TimeoutOptions: ParsableArguments {
    private static let defaults = WorkerConfiguration.Timeouts()

    @Option("From the first byte of a request to the end of its head")
    var requestHeadTimeout = TimeoutOptions.defaults.requestHeadNs

    @Option("How long a client connection may be idle between requests")
    var keepAliveTimeout = TimeoutOptions.defaults.keepAliveNs

    @Option("How long a client may pause within a request's body")
    var clientBodyTimeout = TimeoutOptions.defaults.clientBodyNs

    @Option("How long a client may read nothing while there is something for it")
    var clientStallTimeout = TimeoutOptions.defaults.clientStallNs

    @Option("How long the answer to a client that closed its sending side may take to begin")
    var halfCloseTimeout = TimeoutOptions.defaults.halfCloseNs

    @Option("How long connecting to a backend may take")
    var connectTimeout = TimeoutOptions.defaults.connectNs

    @Option("How long a backend may take to begin its answer")
    var responseHeadTimeout = TimeoutOptions.defaults.responseHeadNs

    @Option("How long a backend may pause while it sends or reads a body")
    var upstreamStallTimeout = TimeoutOptions.defaults.upstreamStallNs

    @Option("How long an upgraded connection (WebSocket) may be silent")
    var tunnelIdleTimeout = TimeoutOptions.defaults.tunnelIdleNs
}

struct UpstreamOptions: ParsableArguments {
    private static let defaults = WorkerConfiguration.PoolLimits()
    /// Of one backend as well, in the configuration file.
    static let connectionsRange = 1...1_000_000

    @Option(count: UpstreamOptions.connectionsRange, "Connections of each worker to one backend")
    var upstreamMaxConnections = UpstreamOptions.defaults.connectionsMax

    @Option(count: 0...1_000_000, "Idle ones among them that are kept")
    var upstreamMaxIdle = UpstreamOptions.defaults.idleMax

    @Option("How long an idle connection is kept")
    var upstreamIdleTimeout = WorkerConfiguration.Timeouts().upstreamIdleNs

    @Option(count: 0...1_000_000, "Requests that may wait for a connection to one backend")
    var upstreamQueue = UpstreamOptions.defaults.waitersMax

    @Option("How long a request may wait for a connection")
    var upstreamQueueTimeout = UpstreamOptions.defaults.waitNs

    @Option(count: 1...1024, "HTTP/2 connections of each worker to one backend")
    var upstreamH2MaxConnections = UpstreamOptions.defaults.http2ConnectionsMax

    @Option("How long an HTTP/2 connection may be silent before it is asked for a sign of life")
    var upstreamPingInterval = WorkerConfiguration.Timeouts().upstreamPingNs

    @Option("How long a backend has for that sign of life")
    var upstreamH2PingTimeout = WorkerConfiguration.Timeouts().pingAnswerNs

    @Option("How long a backend may leave SETTINGS without an acknowledgement")
    var upstreamH2SettingsTimeout = WorkerConfiguration.Timeouts().settingsAnswerNs

    @Option("How long a backend that has asked for HTTP/1.1 is spoken to in it")
    var upstreamH2Pause = WorkerConfiguration.Timeouts().http1PauseNs

    @Option(seconds: SecondsText.delayNs, "Age at which an HTTP/2 connection gets no more requests; 0 sets no limit")
    var upstreamMaxConnectionAge = UpstreamOptions.defaults.connectionAgeNs

    @Option(bytes: 0...1 << 24, "Bytes of a request's body that are kept for another attempt over HTTP/2")
    var retryBuffer = UpstreamOptions.defaults.retryBufferBytes
}
