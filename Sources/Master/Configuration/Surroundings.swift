/// What the balancer learns from outside the command line, gathered once at start so that everything
/// after it is a pure function of values. Tests write their own.
struct Surroundings {
    /// The environment variables that mean something here, those that are set.
    var environment: [String: String] = [:]
    /// CPUs of the affinity mask, in order; never empty.
    var availableCPUs: [Int32] = [0]
    var hostName = "localhost"
    var processID: Int32 = 0
    /// Random bytes for this start's identity.
    var instanceBytes: [UInt8] = Array(repeating: 0, count: 16)
    var isOutputTerminal = false

    /// The names that are looked up.
    static let variables = [
        "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        "OTEL_SEMCONV_STABILITY_OPT_IN", "NO_COLOR", "TERM",
    ]

    /// The machine and process as they are.
    /// - Parameter instance: Random bytes that were drawn for this pid before; nil draws them.
    static func current(instance: [UInt8]? = nil) -> Surroundings {
        Surroundings(
            environment: HostFacts.environment(variables),
            availableCPUs: HostFacts.availableCPUs(),
            hostName: HostFacts.hostName(),
            processID: HostFacts.processID,
            instanceBytes: instance ?? HostFacts.randomBytes(count: 16),
            isOutputTerminal: HostFacts.isOutputTerminal
        )
    }

    /// A variable that is set and not empty; OpenTelemetry treats an empty one as unset.
    func value(_ name: String) -> String? {
        environment[name].flatMap { $0.isEmpty ? nil : $0 }
    }

    /// This start's random identity as a version 4 UUID (RFC 9562 §5.4).
    var instanceID: String {
        var bytes = instanceBytes
        bytes[6] = bytes[6] & 0x0F | 0x40
        bytes[8] = bytes[8] & 0x3F | 0x80
        let hex = bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }
        return [0..<4, 4..<6, 6..<8, 8..<10, 10..<16].map { hex[$0].joined() }.joined(separator: "-")
    }

    /// Whether console traces are coloured: on a terminal, unless NO_COLOR (no-color.org) or a dumb terminal says no.
    var wantsColour: Bool {
        isOutputTerminal && value("NO_COLOR") == nil && value("TERM") != "dumb"
    }
}
