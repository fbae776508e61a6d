import Glibc
import Logging
import ShmRing

/// How this process logs; each process of the balancer makes its logger from it.
struct LogSettings: Equatable, Sendable {
    let level: Logger.Level
    let format: LogFormat

    /// A logger that puts `role` ("master", "worker-0", "exporter") into every line.
    func logger(role: String) -> Logger {
        let sink = LogLineSink(STDERR_FILENO)
        return Logger(label: role) { _ in LineLogHandler(settings: self, role: role, sink: sink) }
    }
}

/// Writes each event as one line to standard error: time, level, role, message, then metadata by key.
///
/// A line goes out in one write(2), which never waits: a line for which there is no room is lost, and the next one
/// that goes out says how many were.
struct LineLogHandler: LogHandler {
    private let settings: LogSettings
    private let role: String
    private let sink: LogLineSink
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    init(settings: LogSettings, role: String, sink: LogLineSink) {
        self.settings = settings
        self.role = role
        self.sink = sink
        logLevel = settings.level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        sink.write { dropped in
            var line = line(event, nowUnixNs: Clock.realtimeNs())
            if dropped > 0 { line.add("lines_dropped", "\(dropped)") }
            return line.text(as: settings.format)
        }
    }

    /// The event as a line. The order of metadata is by key, since a dictionary has none.
    func line(_ event: LogEvent, nowUnixNs: UInt64) -> LogLine {
        var line = LogLine()
        line.add("time", UTCTime.text(unixNs: nowUnixNs))
        line.add("level", event.level.rawValue)
        line.add("role", role)
        line.add("msg", event.message.description)
        if let error = event.error { line.add("error", "\(error)") }
        let merged = metadata.merging(event.metadata ?? [:]) { _, own in own }
        for (key, value) in merged.sorted(by: { $0.key < $1.key }) { line.add(key, "\(value)") }
        return line
    }
}
