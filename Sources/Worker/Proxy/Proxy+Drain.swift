import Logging
import ShmRing

/// The worker leaves: what comes to it is finished, what waits goes to its successor or is waited for.
///
///     connection                          with a successor          without one
///     between two requests                handed over               read for a moment, then closed
///     its request's head is arriving      finished, then as above   finished, `Connection: close`
///     served                              finished, then as above   finished, `Connection: close`
///     tunnel                              goes on until the drain timeout
///     carries HTTP/2                      GOAWAY in two steps, then closed when its streams are finished
///
/// "Handed over" is its descriptor in the successor's `ConnectionInbox`: the client notices nothing, and bytes that it
/// has sent meanwhile are read over there. "Read for a moment" is for the request that crosses the end: it is
/// answered. A connection of which bytes have been read here already cannot be handed over.
extension Proxy {
    /// What the master, or its end, asks for.
    enum DrainRequest {
        /// Stop accepting.
        case atOnce
        /// Go on accepting for a moment: nothing new is coming, only the queues are to be emptied.
        case sweeping
    }

    /// How long a draining worker waits for a request on a connection that is silent.
    static let drainPauseNs: UInt64 = 1_000_000_000
    /// How long it accepts at most from listeners that nothing new reaches: a client whose answer to the SYN-ACK is
    /// lost gets that once more after a second. Usually the master says much sooner that nobody is on the way.
    static let sweepNsMax: UInt64 = 1_500_000_000

    /// Begins to drain. Asked for once more, it is about the successor only: there is one now, or none any more.
    func startDrain(_ request: DrainRequest = .atOnce, successor: consuming FileDescriptor? = nil) {
        let isFirst = !isDraining
        if isFirst { beginDrain(request) }
        if let successor {
            watchSuccessor(ConnectionInbox(successor))
        } else {
            successorGone()
        }
        logger.debug("draining", metadata: ["connections": "\(downstreams.count)"])
        retireIdle(isFirstLook: isFirst)
    }

    private func beginDrain(_ request: DrainRequest) {
        isDraining = true
        drainBegan?()
        drainStartedNs = stampNs()
        tracer?.drainStarted(atNs: drainStartedNs)
        drainDeadlineNs = nowNs &+ configuration.timeouts.drainNs
        if request == .sweeping { sweepEndNs = min(nowNs &+ Self.sweepNsMax, drainDeadlineNs) }
        updateAccepting()
        for connection in downstreams.occupants where connection.phase == .carrying { drainCarrier(connection) }
    }

    /// Nothing is on its way to the listeners any more: what is in their queues is the last. Where not all of it fits
    /// into the table, the rest has the time that there was anyway.
    func finishSweep() {
        guard isDraining, nowNs < sweepEndNs, listeners.allSatisfy({ acceptAll($0) }) else { return }
        sweepEndNs = nowNs
        logger.debug("nobody is on the way to the listeners any more, and their queues are empty")
    }

    /// Whether connections are still accepted.
    var admitsClients: Bool { !isDraining || nowNs < sweepEndNs }

    /// Everything is done, or its time is over.
    func drainIsDone() -> Bool {
        guard isDraining else { return false }
        return nowNs >= drainDeadlineNs || downstreams.count == 0 && nowNs >= sweepEndNs && !takesInbox()
    }

    // MARK: The successor

    private func watchSuccessor(_ inbox: consuming ConnectionInbox) {
        successorGone()
        do {
            try poller.addConnection(inbox.descriptor, token: EventToken(kind: .successor, slot: 0))
        } catch {
            logger.warning("the successor's inbox cannot be watched", metadata: ["reason": "\(error)"])
        }
        successor = consume inbox
        hasSuccessor = true
    }

    /// The inbox has room again, or nobody reads it any more.
    func successorEvent(_ readiness: Readiness) {
        if readiness.isBroken { successorGone() }
        retireIdle(isFirstLook: false)
    }

    private func successorGone() {
        if let inbox = successor.take() { poller.remove(inbox.descriptor) }
        hasSuccessor = false
    }

    /// Whether a client may be told that its connection goes on after this answer, although the worker drains.
    /// What was read of a next request is answered here, for a moment: then the connection ends.
    func mayGoOn(_ connection: DownstreamConnection) -> Bool {
        guard isDraining else { return true }
        if connection.hasInput { return nowNs < drainStartedNs &+ Self.drainPauseNs }
        return hasSuccessor && connection.isPortable
    }

    /// Sends a connection to the successor.
    /// - Returns: False when it has to stay.
    private func handOver(_ connection: DownstreamConnection) -> Bool {
        guard hasSuccessor, connection.isPortable, !connection.hasInput, !connection.hasOutput, !connection.sawEnd,
            successor?.send(connection.descriptor) ?? false
        else { return false }
        // The socket lives on in the other process, and epoll would report it for as long.
        poller.remove(connection.descriptor)
        closeDownstream(connection)
        handedOver += 1
        return true
    }

    // MARK: Connections between two requests

    private func retireIdle(isFirstLook: Bool) {
        for connection in downstreams.occupants where connection.phase == .reading && !connection.hasInput {
            if isFirstLook || hasSuccessor { retire(connection) }
        }
    }

    /// A connection waits for its next request, which this worker should not be the one to get.
    func retire(_ connection: DownstreamConnection) {
        if handOver(connection) { return }
        downstreamDeadlines.arm(connection, .drainPause, nowNs: nowNs)
        // Pipelined requests, or what arrived in this very moment and whose event may not have been looked at yet.
        connection.isReadable = true
        deferDownstream(connection)
    }

    /// Nothing came. One look more, so that closing does not reset a request that is here already.
    func pauseIsOver(_ connection: DownstreamConnection) {
        connection.isReadable = true
        readRequest(connection)
        guard !connection.isClosed, connection.phase == .reading, !connection.hasInput else { return }
        if !handOver(connection) { closeInOrder(connection) }
    }

    // MARK: The end

    /// The drain took too long: what is left is told, counted and cut.
    func abandonEverything() {
        let left = DrainLeftovers(downstreams.occupants)
        logger.warning("the drain timeout is over, what is left is closed", metadata: left.metadata)
        for connection in downstreams.occupants where connection.session == nil {
            if let exchange = connection.exchange {
                closes(exchange.upstream, .drain)
                leaveUpstream(exchange)
                exchange.error = .drainTimeout
                exchange.hadBodyError = exchange.phase == .streaming
                if let stream = connection.stream { exchange.discount(unsent: stream.unsentBytes) }
                closeExchange(exchange)
            }
            closeDownstream(connection)
        }
        for connection in downstreams.occupants { endCarrier(connection) }
    }
}

/// What a worker still has when its time to drain is over.
struct DrainLeftovers: Equatable {
    private(set) var serving = 0
    private(set) var readingHead = 0
    private(set) var tunnels = 0
    private(set) var idle = 0
    private(set) var closing = 0

    init(_ connections: [DownstreamConnection]) {
        for connection in connections { count(connection) }
    }

    private mutating func count(_ connection: DownstreamConnection) {
        switch connection.phase {
        case .serving: if connection.exchange?.phase == .tunnel { tunnels += 1 } else { serving += 1 }
        case .handshaking: readingHead += 1
        case .reading: if connection.hasInput { readingHead += 1 } else { idle += 1 }
        case .lingering: closing += 1
        // Its streams are counted.
        case .carrying: break
        }
    }

    var metadata: Logger.Metadata {
        [
            "connections": "\(serving + readingHead + tunnels + idle + closing)", "serving": "\(serving)",
            "reading_head": "\(readingHead)", "tunnel": "\(tunnels)", "idle": "\(idle)", "closing": "\(closing)",
        ]
    }
}
