import Exporter
import ShmRing
import Worker

/// Everything a child inherits, complete before the first fork and unchanged after it. What is not in here
/// (other children's channels, the master's epoll and signals) is closed in the child.
///
/// Only `Spawner` hands it on. The next generation of workers, when the configuration changes, has a
/// heritage of its own beside this one.
final class Heritage {
    /// Counted from 1.
    let generation: UInt32
    let listeners: ListenerSet
    let worker: WorkerConfiguration
    let workerCount: Int
    /// The CPU of each worker slot; nil when workers are not pinned.
    let pinnedCPUs: [Int32]?
    let tracing: Tracing?
    let log: LogSettings

    /// What exists only when requests are traced.
    struct Tracing {
        let exporter: ExporterConfiguration
        let segment: SpanSegment
        let writersAlive: WritersAlivePipe
    }

    init(
        generation: UInt32, listeners: ListenerSet, worker: WorkerConfiguration, workerCount: Int,
        pinnedCPUs: [Int32]?, tracing: Tracing?, log: LogSettings
    ) {
        self.generation = generation
        self.listeners = listeners
        self.worker = worker
        self.workerCount = workerCount
        self.pinnedCPUs = pinnedCPUs
        self.tracing = tracing
        self.log = log
    }

    /// The descriptors that a child may keep besides standard input, output and error.
    func descriptors(for slot: ChildSlot, control: Int32) -> [Int32] {
        var kept = [control]
        if let tracing { kept.append(tracing.segment.wakeDescriptor) }
        switch slot {
        case .worker(let index):
            kept += listeners.descriptors(worker: index)
            if let accessLog = worker.accessLog { kept.append(accessLog.descriptor) }
            if let tracing { kept.append(tracing.writersAlive.writeEnd) }
        case .exporter:
            if let tracing { kept.append(tracing.writersAlive.readEnd) }
        }
        return kept
    }
}
