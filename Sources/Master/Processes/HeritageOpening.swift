import Glibc
import ShmRing

extension Heritage {
    /// Opens what a configuration names: listeners, access log, shared memory.
    /// - Throws: `StartFailure` of kind run time; what was opened before is closed again.
    convenience init(_ configuration: Configuration) throws(StartFailure) {
        let listeners = try ListenerSet(configuration.listen, count: configuration.workerCount)
        var worker = configuration.worker
        if let target = configuration.accessLog {
            let isJSON = configuration.log.format == .json
            worker.accessLog = .init(descriptor: try AccessLogFile.open(target), isJSON: isJSON)
        }
        let generation: UInt32 = 1
        self.init(
            generation: generation, listeners: listeners, worker: worker, workerCount: configuration.workerCount,
            pinnedCPUs: configuration.pinnedCPUs, tracing: try Tracing(configuration, generation: generation),
            log: configuration.log)
    }
}

extension Heritage.Tracing {
    /// - Returns: Nil when nothing is traced.
    fileprivate init?(_ configuration: Configuration, generation: UInt32) throws(StartFailure) {
        guard let exporter = configuration.exporter else { return nil }
        do throws(SpanSegment.CreationError) {
            segment = try SpanSegment(
                ringCount: configuration.workerCount, ringBytesMin: configuration.spanBufferBytes,
                generation: generation, masterPID: HostFacts.processID)
        } catch {
            throw .runTime("cannot make the memory for spans: \(error); lower --span-buffer or --workers")
        }
        do throws(Errno) {
            writersAlive = try WritersAlivePipe()
        } catch {
            throw .runTime("cannot make a pipe: \(error); raise the limit of open files (ulimit -n)")
        }
        self.exporter = exporter
    }
}
