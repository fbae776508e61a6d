import Logging
import ShmRing

/// Everything the exporter is told before it is forked. Values are checked by whoever builds them.
public struct ExporterConfiguration: Sendable {
    public var destination: Destination
    public var resource: Resource
    /// A batch goes out when this many spans wait …
    public var batchSpansMin = 100
    /// … or when the oldest waits this long, in nanoseconds.
    public var batchDelayNs: UInt64 = 5_000_000_000
    /// How long one post may take, in nanoseconds.
    public var requestTimeoutNs: UInt64 = 10_000_000_000
    /// How long delivering the rest may take at shutdown, in nanoseconds.
    public var flushTimeoutNs: UInt64 = 5_000_000_000
    public var naming = AttributeNaming.classic
    /// What an https collector must show, and is shown.
    public var collectorTLS = CollectorTLS()

    public init(destination: Destination, resource: Resource) {
        self.destination = destination
        self.resource = resource
    }

    public enum Destination: Sendable {
        /// Posts to `url` (the whole URL, /v1/traces included) with extra header fields.
        case collector(url: String, encoding: Encoding, headers: [(name: String, value: String)])
        /// Trees for people on standard output.
        case console(isColoured: Bool)
    }

    /// Paths of PEM files that the exporter reads when it connects; nil is the system's CAs, or nothing to show.
    public struct CollectorTLS: Sendable, Equatable {
        public var authorities: String?
        public var certificate: String?
        public var key: String?

        public init(authorities: String? = nil, certificate: String? = nil, key: String? = nil) {
            self.authorities = authorities
            self.certificate = certificate
            self.key = key
        }
    }

    public enum Encoding: Sendable {
        case protobuf
        case json
    }

    /// Which keys the HTTP, net and DNS attributes go out under (OTEL_SEMCONV_STABILITY_OPT_IN).
    public enum AttributeNaming: Sendable {
        case classic
        case stable
        case both
    }

    /// What every span of this process has in common.
    public struct Resource: Sendable {
        public enum Value: Sendable, Equatable {
            case string(String)
            case int(Int64)
        }

        public var attributes: [(key: String, value: Value)]
        public var scopeName: String
        public var scopeVersion: String

        public init(attributes: [(key: String, value: Value)], scopeName: String, scopeVersion: String) {
            self.attributes = attributes
            self.scopeName = scopeName
            self.scopeVersion = scopeVersion
        }
    }
}

/// What the exporter process inherits from the master.
public struct ExporterInheritance {
    public var segment: SpanSegment
    /// This child's end of its control channel.
    public var control: Int32
    /// Read end of a pipe whose write ends the master and every worker hold: end of file means that
    /// nobody is left who could write a span.
    public var writersAlive: Int32
    public var logger: Logger

    public init(segment: SpanSegment, control: Int32, writersAlive: Int32, logger: Logger) {
        self.segment = segment
        self.control = control
        self.writersAlive = writersAlive
        self.logger = logger
    }
}
