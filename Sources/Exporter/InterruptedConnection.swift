import ShmRing

/// A connection to a backend that a worker had when it died, as far as a request that was on it tells.
struct InterruptedConnection {
    let number: UInt64
    private let target: LinkTarget
    private let backend: (index: Int, host: [UInt8])?
    private let isHTTP2: Bool
    /// When that request went out: it was open by then.
    let startUnixNs: UInt64

    private static let sentence: StaticString = "the worker died while the connection was open"

    /// Nil when the request was on none, or none that has a trace.
    init?(_ request: InterruptedRequest) {
        guard let attempt = request.attempt, let connection = attempt.connection else { return nil }
        (number, target) = connection
        backend = request.backend
        isHTTP2 = attempt.isHTTP2
        startUnixNs = request.startUnixNs + attempt.startNs
    }

    /// Its trace: one span that ends with the worker.
    func write(_ death: WorkerDeath, generation: UInt32, to tree: inout TreeWriter) {
        let noState: [UInt8] = []
        tree.begin(
            traceID: (high: target.traceIDHigh, low: target.traceIDLow), parentSpanID: 0,
            traceFlags: target.traceFlags, baseUnixNs: startUnixNs, traceState: noState.span)
        tree.beginSpan(
            .upstreamConnection, kind: .internal, id: target.spanID, parent: nil, startOffsetNs: 0,
            endOffsetNs: death.unixNs - startUnixNs, status: .error)
        let name = ConnectionName(worker: UInt32(truncatingIfNeeded: death.slot), number: number)
        tree.attribute(.connectionID, text: name.bytes)
        if let backend {
            tree.attribute(.backendHost, text: backend.host.span)
            tree.attribute(.backendID, backend.index)
        }
        tree.attribute(.lbWorker, death.slot)
        tree.attribute(.lbGeneration, Int(generation))
        tree.attribute(.httpFlavor, isHTTP2 ? "2" : "1.1")
        tree.attribute(.connectionCloseReason, InterruptedTree.errorType)
        tree.attribute(.workerSignal, Int(death.signal))
        tree.attribute(.errorType, InterruptedTree.errorType)
        tree.attribute(.statusMessage, Self.sentence)
    }
}
