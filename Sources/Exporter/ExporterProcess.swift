import CShims
import Logging
import ShmRing

/// The life of the exporter process, from fork to exit.
///
/// It reads every ring of the segment and brings the spans to a collector or to standard output. Its only
/// ties to the others are the segment, the control channel and the writers' pipe: it may block, crash or be
/// killed without a worker noticing, and a successor goes on where the last delivery ended.
public enum ExporterProcess {
    /// Works until the master says drain, or until master and workers are gone; then delivers the rest.
    /// - Parameters:
    ///   - configuration: Checked by the caller; `batchSpansMin` at least 1.
    ///   - inheritance: The descriptors are owned from here on.
    /// - Returns: The process's exit status: 0 after a drain, whether or not everything could be delivered.
    public static func run(
        _ configuration: ExporterConfiguration, _ inheritance: consuming ExporterInheritance
    ) -> Int32 {
        IgnoredSignals.ignore()
        let watch = ShutdownWatch(control: inheritance.control, writersAlive: inheritance.writersAlive)
        let segment = inheritance.segment
        let logger = inheritance.logger
        switch configuration.destination {
        case .console(let isColoured):
            var exporter = ConsoleExporter(
                configuration, isColoured: isColoured, segment: segment, watch: watch, logger: logger)
            exporter.run()
        case .collector(let url, .protobuf, let headers):
            var exporter = CollectorExporter<OTLPProtobufEncoder>(
                configuration, url: url, headers: headers, segment: segment, watch: watch, logger: logger)
            exporter.run()
        case .collector(let url, .json, let headers):
            var exporter = CollectorExporter<OTLPJSONEncoder>(
                configuration, url: url, headers: headers, segment: segment, watch: watch, logger: logger)
            exporter.run()
        }
        return 0
    }
}
