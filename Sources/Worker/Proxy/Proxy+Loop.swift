import Logging
import ShmRing

/// The worker's loop: wait, serve events, do what they deferred, expire deadlines.
extension Proxy {
    /// Serves until `control` says drain or ends, and everything in flight is done.
    func run(control: borrowing ControlChannel, termination: borrowing SignalDescriptor) {
        nowNs = Clock.monotonicNs()
        while !drainIsDone() { turn(control, termination, waitMs: waitMs()) }
        if downstreams.count > 0 { abandonEverything() }
        recordOpenConnections()
        if handedOver > 0 { logger.debug("connections went to the successor", metadata: ["count": "\(handedOver)"]) }
        accessLog?.flush()
    }

    /// One turn of the loop.
    func turn(_ control: borrowing ControlChannel, _ termination: borrowing SignalDescriptor, waitMs: Int32) {
        let count = poller.wait(timeoutMs: waitMs)
        nowNs = Clock.monotonicNs()
        http2.nowNs = nowNs
        http2.relieveMemory()
        unixOffsetNs = 0
        status?.turned(nowNs)
        for index in 0..<count {
            guard let (token, readiness) = poller.event(at: index) else { continue }
            status?.serves(token.bits)
            serve(token, readiness, control, termination)
        }
        resumePostponed()
        runDeferred()
        expireDeadlines()
        flushCarriers()
        streamObjects.turnEnds(http2.freeStreams)
        http2.memory.settle(nowNs: nowNs)
        updateAccepting()
        accessLog?.flush()
    }

    private func serve(
        _ token: EventToken, _ readiness: Readiness, _ control: borrowing ControlChannel,
        _ termination: borrowing SignalDescriptor
    ) {
        switch token.kind {
        case .downstream:
            guard let connection = downstreams.occupant(token.slot, generation: token.generation) else { return }
            connection.noticed(readiness)
            downstreamEvent(connection, readiness)
        case .upstream:
            guard let connection = upstreams.occupant(token.slot, generation: token.generation) else { return }
            connection.noticed(readiness)
            upstreamEvent(connection, readiness)
        case .listener:
            acceptFrom(listeners[token.slot])
        case .signal:
            termination.clear()
            startDrain()
        case .control:
            serveControl(control)
        case .inbox:
            serveInbox()
        case .successor:
            successorEvent(readiness)
        }
    }

    private func serveControl(_ control: borrowing ControlChannel) {
        while true {
            var delivery = control.receiveDelivery()
            switch delivery.reading {
            case .message(.drain): startDrain(successor: delivery.takeDescriptor())
            case .message(.drainSweeping): startDrain(.sweeping, successor: delivery.takeDescriptor())
            case .message(.listen):
                if let listener = delivery.takeDescriptor() { addListener(listener) }
            case .message(.sweepOver): finishSweep()
            case .message(.ready): continue
            case .nothing: return
            case .peerGone:
                if !isDraining { logger.warning("the master is gone, draining") }
                poller.remove(control.descriptor)
                return startDrain()
            }
        }
    }

    /// What is deferred while this runs waits for the next turn, whose wait is then 0: no connection can
    /// keep the others from their events.
    private func runDeferred() {
        guard !deferred.isEmpty else { return }
        swap(&deferred, &running)
        for work in running {
            switch work {
            case .continueDownstream(let slot, let generation):
                guard let connection = downstreams.occupant(slot, generation: generation) else { continue }
                continueDownstream(connection)
            case .continueUpstream(let slot, let generation):
                guard let connection = upstreams.occupant(slot, generation: generation) else { continue }
                continueUpstream(connection)
            case .connectWaiter(let waiter, let endpoint):
                connectWaiter(waiter, endpoint)
            case .serveLine(let endpoint):
                serveLine(endpoint)
            case .reacquire(let waiter, let endpoint):
                reacquire(waiter, endpoint)
            }
        }
        running.removeAll(keepingCapacity: true)
    }

    /// Milliseconds until something is due, rounded up; -1 when nothing is.
    private func waitMs() -> Int32 {
        if !deferred.isEmpty || http2.hasDirty { return 0 }
        var next = min(downstreamDeadlines.nextNs ?? .max, upstreamDeadlines.nextNs ?? .max)
        if isDraining { next = min(next, drainDeadlineNs, nowNs < sweepEndNs ? sweepEndNs : .max) }
        next = min(next, http2.memory.nextNs)
        if acceptAgainNs > 0 { next = min(next, acceptAgainNs) }
        if status != nil { next = min(next, nowNs + heartbeatNs) }
        if http2.scarcity != .plenty { next = min(next, nowNs + Self.scarcityTurnNs) }
        guard next != .max else { return -1 }
        guard next > nowNs else { return 0 }
        return Int32(clamping: (next - nowNs) / 1_000_000 + 1)
    }

    private func expireDeadlines() {
        while let (connection, kind) = downstreamDeadlines.popExpired(nowNs: nowNs, { downstreams.occupant($0) }) {
            downstreamExpired(connection, kind)
        }
        while let (connection, kind) = upstreamDeadlines.popExpired(nowNs: nowNs, { upstreams.occupant($0) }) {
            upstreamExpired(connection, kind)
        }
    }

    private func downstreamExpired(_ connection: DownstreamConnection, _ kind: DownstreamDeadline) {
        if connection.phase == .carrying { return carrierExpired(connection, kind) }
        switch kind {
        case .requestHead: refuse(connection, .requestTimeout)
        case .handshake, .keepAlive, .linger, .discard: closeDownstream(connection)
        case .drainPause: pauseIsOver(connection)
        case .clientBody, .clientStall:
            guard let exchange = connection.exchange else { return closeDownstream(connection) }
            clientStalled(exchange)
        case .halfClose:
            if let exchange = connection.exchange { clientGone(exchange) }
        case .poolWait:
            if let exchange = connection.exchange { leaveLine(exchange, .poolQueueTimeout) }
        case .tunnelIdle:
            guard let exchange = connection.exchange else { return }
            exchange.phase == .tunnel ? finishTunnel(exchange, error: nil) : clientStalled(exchange)
        }
    }

    private func upstreamExpired(_ connection: UpstreamConnection, _ kind: UpstreamDeadline) {
        if connection.session != nil { return upstreamCarrierExpired(connection, kind) }
        if kind == .streamEnd { return closeUpstream(connection) }
        guard let exchange = connection.exchange, kind != .idle else {
            closes(connection, .idleTimeout)
            return closeUpstream(connection)
        }
        switch kind {
        case .connect: connectFailed(exchange, .connectTimeout)
        case .responseHead, .stall: attemptFailed(exchange, .upstreamTimeout, connectionEnded: false)
        case .idle, .streamEnd, .ping, .pingAnswer, .settingsAnswer, .leaving:
            preconditionFailure("\(kind) runs while a request is served")
        }
    }
}
