import Logging

/// One thing that both the configuration file and a flag can say: what ties them together.
///
/// Forms, ranges and defaults are declared once, with the flag in `CommandLineOptions`: a file's values go
/// through the same parser. A new flag needs a line in `all`; a test finds the flag that has none.
struct Setting: Sendable {
    /// Which JSON values it takes, besides null, which leaves the default.
    enum Form: Equatable {
        /// Seconds, bytes or a count: a number, or the text that the flag takes.
        case quantity
        /// A word, a name, a path.
        case text
        /// Several of them, each an occurrence of the flag; one alone needs no list.
        case texts
        /// true or false: the flag, or its negation.
        case flag
    }

    /// Where it stands in the file: keys with dots between them.
    let path: String
    /// The flag with its two hyphens.
    let flag: String
    let form: Form
    /// The value that is in force, as JSON; null where it is decided later.
    let json: @Sendable (CommandLineOptions) -> String

    /// - Parameter text: A flag's value; of `Form.flag`, "true" or "false".
    func argument(_ text: String) -> String {
        guard form == .flag else { return "\(flag)=\(text)" }
        return text == "true" ? flag : "--no-" + flag.dropFirst(2)
    }
}

extension Setting {
    private typealias Path<Value> = KeyPath<CommandLineOptions, Value> & Sendable

    /// In the order of the help.
    static let all = serving + tls + upstreamTLS + lifecycle + tracing + logging + limits + timeouts + upstream

    private static let serving = [
        Setting(path: "listeners[0].port", flag: "--port", form: .quantity) {
            // Where nobody says, it is left to what stands beside it.
            let byDefault = $0.tls.tlsPort == nil ? "\(ServingOptions.portByDefault)" : "null"
            return $0.serving.port.map { "\($0)" } ?? byDefault
        },
        text("listeners[0].address", "--address", \.serving.address),
        // 0 stands for the CPUs, which no file can say.
        Setting(path: "workers", flag: "--workers", form: .quantity) {
            $0.serving.workers == 0 ? "null" : "\($0.serving.workers)"
        },
        flag("pin_workers", "--pin-workers", \.serving.pinWorkers),
    ]

    private static let tls = [
        Setting(path: "tls.port", flag: "--tls-port", form: .quantity) { $0.tls.tlsPort.map { "\($0)" } ?? "null" },
        texts("tls.certificates", "--tls-cert", \.tls.tlsCert),
        texts("tls.keys", "--tls-key", \.tls.tlsKey),
        text("tls.min_version", "--tls-min-version", \.tls.tlsMinVersion.rawValue),
        text("tls.ciphers", "--tls-ciphers", \.tls.tlsCiphers),
        text("tls.client_ca", "--client-ca", \.tls.clientCa),
        text("tls.client_verify", "--client-verify", \.tls.clientVerify.rawValue),
        texts("tls.ocsp", "--tls-ocsp", \.tls.tlsOcsp),
        seconds("tls.handshake_timeout", "--tls-handshake-timeout", \.tls.tlsHandshakeTimeout),
    ]

    private static let upstreamTLS = [
        text("upstream_tls.ca", "--upstream-ca", \.upstreamTLS.upstreamCa),
        text("upstream_tls.certificate", "--upstream-cert", \.upstreamTLS.upstreamCert),
        text("upstream_tls.key", "--upstream-key", \.upstreamTLS.upstreamKey),
        text("upstream_tls.alpn", "--upstream-alpn", \.upstreamTLS.alpnText),
        flag("upstream_tls.insecure", "--insecure", \.upstreamTLS.insecure),
    ]

    private static let lifecycle = [
        seconds("lifecycle.drain_timeout", "--drain-timeout", \.lifecycle.drainTimeout),
        seconds("lifecycle.ready_timeout", "--ready-timeout", \.lifecycle.readyTimeout),
        count("lifecycle.draining_max", "--max-draining", \.lifecycle.maxDraining),
        seconds("lifecycle.worker_stall_timeout", "--worker-stall-timeout", \.lifecycle.workerStallTimeout),
        flag("lifecycle.watch_config", "--watch-config", \.lifecycle.watchConfig),
        text("lifecycle.pid_file", "--pid-file", \.lifecycle.pidFile),
        text("lifecycle.user", "--user", \.lifecycle.user),
        text("lifecycle.group", "--group", \.lifecycle.group),
    ]

    private static let tracing = [
        text("tracing.endpoint", "--otel-endpoint", \.tracing.otelEndpoint?.base),
        text("tracing.protocol", "--otel-protocol", \.tracing.otelProtocol.rawValue),
        text("tracing.exporter", "--otel-exporter", \.tracing.otelExporter?.rawValue),
        text("tracing.service_name", "--service-name", \.tracing.serviceName),
        count("tracing.batch_size", "--otel-batch-size", \.tracing.otelBatchSize),
        seconds("tracing.batch_delay", "--otel-batch-delay", \.tracing.otelBatchDelay),
        seconds("tracing.timeout", "--otel-timeout", \.tracing.otelTimeout),
        bytes("tracing.span_buffer", "--span-buffer", \.tracing.spanBuffer),
        flag("tracing.connections", "--connection-traces", \.tracing.connectionTraces),
    ]

    private static let logging = [
        text("logging.level", "--log-level", \.logging.logLevel.rawValue),
        text("logging.format", "--log-format", \.logging.logFormat.rawValue),
        text("logging.access_log", "--access-log", \.logging.accessLog),
    ]

    private static let limits = [
        bytes("limits.request_head", "--max-request-head", \.limits.maxRequestHead),
        count("limits.request_fields", "--max-request-fields", \.limits.maxRequestFields),
        bytes("limits.request_target", "--max-request-target", \.limits.maxRequestTarget),
        bytes("limits.response_head", "--max-response-head", \.limits.maxResponseHead),
        bytes("limits.body", "--max-body", \.limits.maxBody),
        count("limits.connections", "--max-connections", \.limits.maxConnections),
        count("limits.requests_per_connection", "--max-requests-per-connection", \.limits.maxRequestsPerConnection),
        count("limits.h2_streams", "--h2-max-concurrent-streams", \.limits.h2MaxConcurrentStreams),
        count("limits.attempts", "--max-attempts", \.limits.maxAttempts),
    ]

    private static let timeouts = [
        seconds("timeouts.request_head", "--request-head-timeout", \.timeouts.requestHeadTimeout),
        seconds("timeouts.keep_alive", "--keep-alive-timeout", \.timeouts.keepAliveTimeout),
        seconds("timeouts.client_body", "--client-body-timeout", \.timeouts.clientBodyTimeout),
        seconds("timeouts.client_stall", "--client-stall-timeout", \.timeouts.clientStallTimeout),
        seconds("timeouts.half_close", "--half-close-timeout", \.timeouts.halfCloseTimeout),
        seconds("timeouts.connect", "--connect-timeout", \.timeouts.connectTimeout),
        seconds("timeouts.response_head", "--response-head-timeout", \.timeouts.responseHeadTimeout),
        seconds("timeouts.upstream_stall", "--upstream-stall-timeout", \.timeouts.upstreamStallTimeout),
        seconds("timeouts.tunnel_idle", "--tunnel-idle-timeout", \.timeouts.tunnelIdleTimeout),
    ]

    private static let upstream = [
        count("upstream.connections_max", "--upstream-max-connections", \.upstream.upstreamMaxConnections),
        count("upstream.idle_max", "--upstream-max-idle", \.upstream.upstreamMaxIdle),
        seconds("upstream.idle_timeout", "--upstream-idle-timeout", \.upstream.upstreamIdleTimeout),
        count("upstream.queue", "--upstream-queue", \.upstream.upstreamQueue),
        seconds("upstream.queue_timeout", "--upstream-queue-timeout", \.upstream.upstreamQueueTimeout),
        count("upstream.h2_connections_max", "--upstream-h2-max-connections", \.upstream.upstreamH2MaxConnections),
        seconds("upstream.ping_interval", "--upstream-ping-interval", \.upstream.upstreamPingInterval),
        seconds("upstream.h2_ping_timeout", "--upstream-h2-ping-timeout", \.upstream.upstreamH2PingTimeout),
        seconds("upstream.h2_settings_timeout", "--upstream-h2-settings-timeout", \.upstream.upstreamH2SettingsTimeout),
        seconds("upstream.h2_pause", "--upstream-h2-pause", \.upstream.upstreamH2Pause),
        seconds("upstream.connection_age", "--upstream-max-connection-age", \.upstream.upstreamMaxConnectionAge),
        bytes("upstream.retry_buffer", "--retry-buffer", \.upstream.retryBuffer),
    ]

    private static func seconds(_ path: String, _ flag: String, _ value: Path<UInt64>) -> Setting {
        Setting(path: path, flag: flag, form: .quantity) { SecondsText.format($0[keyPath: value]) }
    }

    private static func bytes(_ path: String, _ flag: String, _ value: Path<Int>) -> Setting {
        Setting(path: path, flag: flag, form: .quantity) { "\"\(BytesText.format($0[keyPath: value]))\"" }
    }

    private static func count(_ path: String, _ flag: String, _ value: Path<Int>) -> Setting {
        Setting(path: path, flag: flag, form: .quantity) { "\($0[keyPath: value])" }
    }

    private static func text(_ path: String, _ flag: String, _ value: Path<String>) -> Setting {
        Setting(path: path, flag: flag, form: .text) { LogLine.quoted($0[keyPath: value]) }
    }

    private static func text(_ path: String, _ flag: String, _ value: Path<String?>) -> Setting {
        Setting(path: path, flag: flag, form: .text) { $0[keyPath: value].map(LogLine.quoted) ?? "null" }
    }

    private static func texts(_ path: String, _ flag: String, _ value: Path<[String]>) -> Setting {
        Setting(path: path, flag: flag, form: .texts) {
            "[" + $0[keyPath: value].map(LogLine.quoted).joined(separator: ", ") + "]"
        }
    }

    private static func flag(_ path: String, _ flag: String, _ value: Path<Bool>) -> Setting {
        Setting(path: path, flag: flag, form: .flag) { "\($0[keyPath: value])" }
    }
}
