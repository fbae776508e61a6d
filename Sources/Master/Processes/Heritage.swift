import Exporter
import ShmRing
import Worker

/// Everything that the children of one generation inherit, complete before their first fork. What is not in here
/// (other children's channels, the master's epoll and signals) is closed in the child.
///
/// Only `Spawner` hands it on. Each generation has a heritage of its own; generations share listeners, which may
/// become more but not fewer.
final class Heritage {
    /// Counted from 1.
    let generation: UInt32
    /// Text of the configuration file it was made from; nil without one.
    let fileText: String?
    let listeners: [ListenerSet]
    let board: StatusBoard
    /// With an access log that is open.
    let worker: WorkerConfiguration
    private let accessLog: AccessLogFile?
    let workerCount: Int
    /// The CPU of each worker slot; nil when workers are not pinned.
    let pinnedCPUs: [Int32]?
    let tracing: Tracing?
    let log: LogSettings
    let lifecycle: LifecyclePolicy
    let service: ServicePolicy
    /// Who the children run as; nil: as the master.
    let credentials: Credentials?

    /// Where each worker finds connections that its predecessors hand over; empty without a predecessor.
    private var inboxes: [InboxEnds] = []

    /// What exists only when requests are traced.
    struct Tracing {
        let exporter: ExporterConfiguration
        let segment: SpanSegment
        let writersAlive: WritersAlivePipe
    }

    init(
        _ configuration: Configuration, generation: UInt32, listeners: [ListenerSet], accessLog: AccessLogFile?,
        board: StatusBoard, tracing: Tracing?
    ) {
        self.generation = generation
        self.listeners = listeners
        self.accessLog = accessLog
        self.board = board
        self.tracing = tracing
        var worker = configuration.worker
        if let wanted = configuration.tlsListen {
            // The last: where the place for plain HTTP looks the same, it comes before.
            worker.tlsPort = listeners.last { $0.wanted == wanted }?.address.port
        }
        if let accessLog {
            worker.accessLog = .init(descriptor: accessLog.descriptor, isJSON: configuration.log.format == .json)
        }
        self.worker = worker
        workerCount = configuration.workerCount
        pinnedCPUs = configuration.pinnedCPUs
        log = configuration.log
        lifecycle = configuration.lifecycle
        service = configuration.service
        credentials = configuration.credentials
        fileText = configuration.fileText
    }

    /// What a worker says that it serves, in words.
    func activity(of slot: Int) -> String { WorkerActivity.text(board.activity(slot)) }

    /// The sockets that a worker accepts from at this moment.
    func listeningDescriptors(worker slot: Int) -> [Int32] {
        listeners.flatMap { $0.descriptors(worker: slot, of: workerCount) }
    }

    /// Makes the inboxes of the workers, before the first is forked.
    func openInboxes() throws(StartFailure) {
        do throws(Errno) {
            inboxes = try (0..<workerCount).map { (_) throws(Errno) in try InboxEnds() }
        } catch {
            throw .runTime("cannot make sockets for the workers: \(error); raise the limit of open files (ulimit -n)")
        }
    }

    /// Where a worker of the predecessor sends its idle connections.
    func inboxWriter(for slot: Int) -> Int32? {
        inboxes.isEmpty ? nil : inboxes[slot % inboxes.count].writer
    }

    /// The predecessors have what they need: when the last of them is gone, the workers shall see it.
    func closeInboxes() { inboxes.forEach { $0.closeWriteEnd() } }

    /// The descriptors that a child may keep besides standard input, output and error.
    func descriptors(for slot: ChildSlot, control: Int32) -> [Int32] {
        var kept = [control]
        if let tracing { kept.append(tracing.segment.wakeDescriptor) }
        switch slot {
        case .worker(let index):
            kept += listeningDescriptors(worker: index)
            if let inbox = inbox(of: index) { kept.append(inbox) }
            if let accessLog = worker.accessLog { kept.append(accessLog.descriptor) }
            if let tracing { kept.append(tracing.writersAlive.writeEnd) }
        case .exporter:
            if let tracing { kept.append(tracing.writersAlive.readEnd) }
        }
        return kept
    }

    /// The end that a worker reads.
    func inbox(of slot: Int) -> Int32? { inboxes.isEmpty ? nil : inboxes[slot].read.rawValue }
}

/// The ends of one worker's inbox. The read end stays here, so that a worker that dies leaves what is in it to its
/// successor.
private final class InboxEnds {
    let read: FileDescriptor
    /// Nil when it is closed.
    private(set) var writer: Int32?
    private var write: FileDescriptor?

    init() throws(Errno) {
        let ends = try ConnectionInbox.makePair()
        read = FileDescriptor(owning: ends.read)
        write = FileDescriptor(owning: ends.write)
        writer = ends.write
    }

    func closeWriteEnd() {
        writer = nil
        write = nil
    }
}
