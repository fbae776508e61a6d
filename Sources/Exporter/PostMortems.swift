import Logging
import ShmRing

/// Tells what dead workers were doing: each request that was in flight becomes a tree in the exporter's own ring, from
/// where it goes the way of every other tree, delivered at least once.
///
///     death noted ─► connections ─► entry 0, 1, … ─► tree published, entry forgotten ─► death settled
///                                       └─ no room in the ring: go on here when there is
///
/// Connections on which such requests were have lost their history with the worker; of each a trace is made that says
/// no more than that, so that the links of these requests and of those before them lead somewhere.
///
/// What this process had published and not forgotten when it dies, its successor publishes again with the same ids.
struct PostMortems: ~Copyable {
    private var reader: PostMortemReader
    private var producer: RingProducer
    private let generation: UInt32
    private var current: Progress?
    private let logger: Logger
    /// There is something to tell, and no room for it.
    private(set) var isBlocked = false

    private struct Progress {
        let death: WorkerDeath
        /// Nil before anybody has looked; those that are not told yet.
        var connections: [InterruptedConnection]?
        var nextEntry = 0
        var told = 0
    }

    init(segment: SpanSegment, logger: Logger) {
        reader = segment.postMortemReader()
        producer = segment.postMortemProducer()
        generation = segment.generation
        self.logger = logger
    }

    /// Whether every death that was noted is dealt with.
    var isDone: Bool { current == nil && reader.nextDeath() == nil }

    /// Does what there is to do, as far as there is room.
    mutating func work() {
        isBlocked = false
        while let progress = current ?? reader.nextDeath().map({ Progress(death: $0) }) {
            current = tell(progress)
            guard current == nil else {
                isBlocked = true
                return
            }
        }
    }

    /// - Returns: Where to go on, nil when the death is dealt with.
    private mutating func tell(_ start: Progress) -> Progress? {
        var progress = start
        let count = reader.entryCount(of: progress.death)
        var connections = progress.connections ?? connections(of: progress.death, entryCount: count)
        while let connection = connections.last {
            guard publish(connection, progress.death) else {
                progress.connections = connections
                return progress
            }
            connections.removeLast()
        }
        progress.connections = []
        while progress.nextEntry < count {
            guard producer.hasRoom(bytesMax: InterruptedTree.bytesMax) else { return progress }
            if let request = reader.take(progress.nextEntry, of: progress.death) {
                publish(request, progress.death)
                progress.told += 1
            }
            reader.forget(progress.nextEntry, of: progress.death)
            progress.nextEntry += 1
        }
        reader.settle(progress.death)
        log(progress)
        return nil
    }

    /// Each connection that a request was on, from the first that is known of it.
    private func connections(of death: WorkerDeath, entryCount: Int) -> [InterruptedConnection] {
        var found: [UInt64: InterruptedConnection] = [:]
        for index in 0..<entryCount {
            guard let request = reader.peek(index, of: death), let connection = InterruptedConnection(request) else {
                continue
            }
            let known = found[connection.number]
            if known.map({ connection.startUnixNs < $0.startUnixNs }) ?? true { found[connection.number] = connection }
        }
        return found.values.sorted { $0.number > $1.number }
    }

    /// - Returns: False when there is no room.
    private mutating func publish(_ connection: InterruptedConnection, _ death: WorkerDeath) -> Bool {
        guard producer.hasRoom(bytesMax: InterruptedTree.bytesMax),
            var tree = producer.reserve(bytesMax: InterruptedTree.bytesMax)
        else { return false }
        connection.write(death, generation: generation, to: &tree)
        producer.publish(tree)
        return true
    }

    private mutating func publish(_ request: InterruptedRequest, _ death: WorkerDeath) {
        guard var tree = producer.reserve(bytesMax: InterruptedTree.bytesMax) else { return }
        InterruptedTree.write(request, death, generation: generation, to: &tree)
        producer.publish(tree)
    }

    private func log(_ progress: Progress) {
        guard progress.told > 0 else { return }
        logger.warning(
            "requests were in flight in a worker that died",
            metadata: [
                "worker": "\(progress.death.slot)", "signal": "\(progress.death.signal)",
                "requests": "\(progress.told)",
            ])
    }
}

/// The tree of a request whose worker died: its root, and the attempt that the backend may know of.
enum InterruptedTree {
    /// More than any of these trees takes.
    static let bytesMax = 2048

    static let errorType: StaticString = "worker_crashed"
    private static let sentence: StaticString = "the worker died while it served the request"

    static func write(
        _ request: InterruptedRequest, _ death: WorkerDeath, generation: UInt32, to tree: inout TreeWriter
    ) {
        let noState: [UInt8] = []
        tree.begin(
            traceID: request.traceID, parentSpanID: request.parentSpanID, traceFlags: request.traceFlags,
            baseUnixNs: request.startUnixNs, traceState: noState.span)
        let url = url(request)
        writeRoot(request, death, url, generation: generation, to: &tree)
        if let attempt = request.attempt { writeAttempt(attempt, request, death, url, to: &tree) }
    }

    private static func writeRoot(
        _ request: InterruptedRequest, _ death: WorkerDeath, _ url: [UInt8], generation: UInt32,
        to tree: inout TreeWriter
    ) {
        tree.beginSpan(
            .proxyRequest, kind: .server, id: request.spanID, parent: nil, startOffsetNs: 0,
            endOffsetNs: death.unixNs - request.startUnixNs, status: .error)
        writeRequest(request, url, to: &tree)
        if !request.authority.isEmpty { tree.attribute(.httpHost, text: request.authority.span) }
        if let response = request.attempt?.response { tree.attribute(.httpStatusCode, response.status) }
        if let backend = request.backend {
            tree.attribute(.backendID, backend.index)
            tree.attribute(.backendHost, text: backend.host.span)
        }
        tree.attribute(.lbWorker, death.slot)
        tree.attribute(.lbGeneration, Int(generation))
        tree.attribute(.workerSignal, Int(death.signal))
        tree.attribute(.workerLastPhase, request.lastPhase.text)
        writeError(to: &tree)
    }

    /// A response that had begun ended the attempt, as it does in other trees; without one, the death did.
    private static func writeAttempt(
        _ attempt: InterruptedRequest.Attempt, _ request: InterruptedRequest, _ death: WorkerDeath, _ url: [UInt8],
        to tree: inout TreeWriter
    ) {
        let isError = attempt.response.map { $0.status >= 400 } ?? true
        tree.beginSpan(
            attempt.isHTTP2 ? .backendRequestH2 : .backendRequest, kind: .client, id: attempt.spanID, parent: 0,
            startOffsetNs: attempt.startNs,
            endOffsetNs: attempt.response?.startNs ?? death.unixNs - request.startUnixNs,
            status: isError ? .error : .unset)
        writeRequest(request, url, to: &tree)
        if !attempt.isHTTP2 { tree.attribute(.httpFlavor, "1.1") }
        if let response = attempt.response {
            tree.attribute(.httpStatusCode, response.status)
        } else {
            writeError(to: &tree)
        }
        guard let connection = attempt.connection else { return }
        let name = ConnectionName(worker: UInt32(truncatingIfNeeded: death.slot), number: connection.number)
        tree.link(to: connection.target, connection: name)
    }

    private static func writeRequest(_ request: InterruptedRequest, _ url: [UInt8], to tree: inout TreeWriter) {
        if !request.method.isEmpty { tree.attribute(.httpMethod, text: request.method.span) }
        if !url.isEmpty { tree.attribute(.httpURL, text: url.span) }
    }

    private static func writeError(to tree: inout TreeWriter) {
        tree.attribute(.errorType, errorType)
        tree.attribute(.statusMessage, sentence)
    }

    /// The URL as far as it was noted: without its query.
    private static func url(_ request: InterruptedRequest) -> [UInt8] {
        let scheme = request.isSecure ? "https://" : "http://"
        return request.authority.isEmpty ? request.path : Array(scheme.utf8) + request.authority + request.path
    }
}
