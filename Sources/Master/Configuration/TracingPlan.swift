import Exporter

/// Turns the tracing flags and the OTEL_ variables into what the exporter is told.
///
/// A variable that cannot be read costs what it says, never the start: the proxy is more important than its
/// traces. Each such case is a warning.
struct TracingPlan {
    /// Nil when nothing is traced.
    private(set) var exporter: ExporterConfiguration?
    private(set) var warnings: [String] = []

    init(_ options: TracingOptions, _ surroundings: Surroundings) throws(StartFailure) {
        let kind = options.otelExporter ?? (options.otelEndpoint == nil ? .none : .otlp)
        guard kind != .none else { return }
        let destination = try destination(kind, options, surroundings)
        var exporter = ExporterConfiguration(destination: destination, resource: resource(options, surroundings))
        exporter.batchSpansMin = options.otelBatchSize
        exporter.batchDelayNs = options.otelBatchDelay
        exporter.requestTimeoutNs = options.otelTimeout
        exporter.collectorTLS = collectorTLS(surroundings)
        exporter.naming = Self.naming(surroundings.value("OTEL_SEMCONV_STABILITY_OPT_IN"))
        self.exporter = exporter
    }

    /// Every file that the exporter reads.
    static func paths(_ options: TracingOptions, _ surroundings: Surroundings) -> [String] {
        guard options.otelEndpoint != nil else { return [] }
        return ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"].compactMap {
            surroundings.value("OTEL_EXPORTER_OTLP_\($0)")
        }
    }

    private mutating func destination(
        _ kind: ExporterKind, _ options: TracingOptions, _ surroundings: Surroundings
    ) throws(StartFailure) -> ExporterConfiguration.Destination {
        guard kind == .otlp else { return .console(isColoured: surroundings.wantsColour) }
        guard let url = options.otelEndpoint else {
            throw .usage("--otel-exporter otlp has nowhere to send; add --otel-endpoint URL, or use console")
        }
        let encoding: ExporterConfiguration.Encoding = options.otelProtocol == .json ? .json : .protobuf
        return .collector(url: url.description, encoding: encoding, headers: headers(surroundings))
    }

    /// Extra header fields of every post. A name or value that HTTP does not allow (RFC 9110 §5.1, §5.5)
    /// makes the variable worthless, because it would split the request.
    private mutating func headers(_ surroundings: Surroundings) -> [(name: String, value: String)] {
        let members = members(of: "OTEL_EXPORTER_OTLP_HEADERS", surroundings)
        guard members.allSatisfy({ Self.isFieldName($0.key) && Self.isFieldValue($0.value) }) else {
            warnings.append("OTEL_EXPORTER_OTLP_HEADERS is ignored: it has a name or value that HTTP does not allow")
            return []
        }
        return members.map { ($0.key, $0.value) }
    }

    /// Files by the names that OpenTelemetry gives them (OTLP exporter configuration). One that cannot be read
    /// is a warning and kept: an exporter that may not read it fails to connect, rather than trust anybody else.
    private mutating func collectorTLS(_ surroundings: Surroundings) -> ExporterConfiguration.CollectorTLS {
        let tls = ExporterConfiguration.CollectorTLS(
            authorities: file("OTEL_EXPORTER_OTLP_CERTIFICATE", surroundings),
            certificate: file("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", surroundings),
            key: file("OTEL_EXPORTER_OTLP_CLIENT_KEY", surroundings))
        if (tls.certificate == nil) != (tls.key == nil) {
            warnings.append(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY belong together; only one is set"
            )
        }
        return tls
    }

    private mutating func file(_ variable: String, _ surroundings: Surroundings) -> String? {
        guard let path = surroundings.value(variable) else { return nil }
        do throws(BadValue) {
            _ = try SmallFile.text(path)
        } catch {
            warnings.append("\(variable): \(path) \(error.description)")
        }
        return path
    }

    /// What the process knows of itself, then the environment, then the service's name by precedence:
    /// flag, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, default.
    private mutating func resource(
        _ options: TracingOptions, _ surroundings: Surroundings
    ) -> ExporterConfiguration.Resource {
        var attributes: [(key: String, value: ExporterConfiguration.Resource.Value)] = [
            ("service.name", .string(productName)),
            ("service.version", .string(productVersion)),
            ("service.instance.id", .string(surroundings.instanceID)),
            ("process.pid", .int(Int64(surroundings.processID))),
            ("host.name", .string(surroundings.hostName)),
        ]
        func set(_ key: String, _ value: String) {
            attributes.removeAll { $0.key == key }
            attributes.append((key, .string(value)))
        }
        for member in members(of: "OTEL_RESOURCE_ATTRIBUTES", surroundings) { set(member.key, member.value) }
        if let name = options.serviceName ?? surroundings.value("OTEL_SERVICE_NAME") { set("service.name", name) }
        return .init(attributes: attributes, scopeName: productName, scopeVersion: productVersion)
    }

    private mutating func members(of variable: String, _ surroundings: Surroundings) -> [KeyValueList.Member] {
        guard let text = surroundings.value(variable) else { return [] }
        do throws(BadValue) {
            return try KeyValueList.parse(text)
        } catch {
            // The message would show a member, and a header's may be a secret.
            let isSecret = variable == "OTEL_EXPORTER_OTLP_HEADERS"
            warnings.append("\(variable) is ignored: \(isSecret ? "it is not key=value,..." : error.description)")
            return []
        }
    }

    /// "http" asks for the stable names, "http/dup" for both and wins (OpenTelemetry HTTP semantic
    /// conventions, migration note).
    private static func naming(_ optIn: String?) -> ExporterConfiguration.AttributeNaming {
        let values = (optIn ?? "").split(separator: ",").map { $0.filter { !$0.isWhitespace } }
        if values.contains("http/dup") { return .both }
        return values.contains("http") ? .stable : .classic
    }

    private static func isFieldName(_ name: String) -> Bool {
        name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
            case UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
            }
        }
    }

    private static func isFieldValue(_ value: String) -> Bool {
        value.utf8.allSatisfy { $0 == UInt8(ascii: "\t") || ($0 >= 0x20 && $0 != 0x7F) }
    }
}
