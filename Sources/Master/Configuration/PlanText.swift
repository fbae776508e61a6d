import Exporter
import ShmRing
import Worker

/// What would run, as `--check` prints it: one fact a line, names in a column of their own.
enum PlanText {
    static func describe(_ configuration: Configuration) -> String {
        rows(configuration).map { row in
            let gap = String(repeating: " ", count: max(1, 12 - row.name.count))
            return row.name + gap + PrintableText.escaped(row.value) + "\n"
        }.joined()
    }

    private static func rows(_ configuration: Configuration) -> [(name: String, value: String)] {
        let backends = configuration.worker.backends.enumerated().map { index, backend in
            (index == 0 ? "backends" : "", "\(index): \(describe(backend))")
        }
        return [
            ("listen", places(configuration).joined(separator: ", "))
        ] + certificates(configuration) + [
            ("workers", workers(configuration))
        ] + backends + [
            ("tracing", describe(configuration.exporter)),
            ("access log", describe(configuration.accessLog)),
            ("log", "\(configuration.log.level) and above as \(configuration.log.format.rawValue)"),
        ]
    }

    private static func places(_ configuration: Configuration) -> [String] {
        let places = configuration.listenAddresses.map(\.description)
        return configuration.tlsListen == nil ? places : places.dropLast() + ["\(places[places.count - 1]) (TLS)"]
    }

    private static func certificates(_ configuration: Configuration) -> [(name: String, value: String)] {
        let names = configuration.worker.tlsServer?.certificateNames ?? []
        return names.enumerated().map { index, names in
            (index == 0 ? "certificate" : "", "\(index): \(names.joined(separator: ", "))")
        }
    }

    private static func workers(_ configuration: Configuration) -> String {
        let connections = "up to \(configuration.worker.limits.connectionsMax) connections each"
        guard let cpus = configuration.pinnedCPUs else { return "\(configuration.workerCount), \(connections)" }
        let list = cpus.map(String.init).joined(separator: " ")
        return "\(configuration.workerCount), \(connections), on the CPUs \(list)"
    }

    private static func describe(_ backend: WorkerConfiguration.Backend) -> String {
        let name = backend.isSecure ? "https://\(backend.name)" : backend.name
        guard backend.hostname != nil else { return name }
        return "\(name) at " + backend.addresses.map(\.ip).joined(separator: ", ")
    }

    private static func describe(_ accessLog: Configuration.AccessLogTarget?) -> String {
        switch accessLog {
        case nil: "off"
        case .standardOutput: "standard output"
        case .file(let path): path
        }
    }

    /// Where traces go, in a few words; the ready line of the log says the same.
    static func describe(_ exporter: ExporterConfiguration?) -> String {
        switch exporter?.destination {
        case nil: "off"
        case .console: "console"
        case .collector(let url, let encoding, _): "\(encoding == .json ? "JSON" : "protobuf") to \(url)"
        }
    }
}
