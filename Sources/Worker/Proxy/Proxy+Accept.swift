import Logging
import ShmRing

/// Clients come in. A full table or a lack of descriptors stops accepting, and the kernel's queue waits.
extension Proxy {
    /// Connections taken in one turn, so that a flood does not starve those that are here.
    private static let acceptsPerTurn = 64
    /// Pause after descriptors ran out, if no connection closes before.
    private static let exhaustedPauseNs: UInt64 = 100_000_000

    /// - Returns: Whether its queue is empty now.
    @discardableResult
    func acceptFrom(_ listener: Int32) -> Bool {
        let server = tlsServer(of: listener)
        for _ in 0..<Self.acceptsPerTurn {
            guard !isFull, isAccepting else { return false }
            switch Socket.accept(listener) {
            case .accepted(let descriptor, let peer):
                admit(descriptor, peer, server)
            case .none: return true
            case .aborted: continue
            case .exhausted(let error):
                pauseAccepting(reason: error.description)
                return false
            }
        }
        return false
    }

    /// Empties the queue of a listener that nothing new reaches.
    /// - Returns: False when there was no room for everything.
    func acceptAll(_ listener: Int32) -> Bool {
        while !isFull, isAccepting, acceptAgainNs == 0 {
            if acceptFrom(listener) { return true }
        }
        return false
    }

    /// One line in this time at most: the state lasts, the news does not.
    private static let exhaustionLogPauseNs: UInt64 = 10_000_000_000

    /// Descriptors ran out.
    func pauseAccepting(reason: String) {
        acceptAgainNs = nowNs + Self.exhaustedPauseNs
        guard exhaustionLoggedNs == 0 || nowNs >= exhaustionLoggedNs + Self.exhaustionLogPauseNs else { return }
        exhaustionLoggedNs = nowNs
        logger.warning("accepting pauses", metadata: ["reason": "\(reason)"])
    }

    /// Streams have no connection of their own.
    var isFull: Bool { downstreams.count - streamCount >= configuration.limits.connectionsMax }

    /// A client's connection, accepted or handed over, gets its place.
    /// - Parameter server: Nil for plain HTTP.
    func admit(_ descriptor: Int32, _ address: SocketAddress, _ server: TLSServer? = nil) {
        if address.port != nil { Socket.disableNagle(descriptor) }
        let inserted = downstreams.insert { slot, generation in
            DownstreamConnection(
                descriptor: descriptor, slot: slot, generation: generation, peer: PeerName(address))
        }
        guard let connection = inserted else { preconditionFailure("accepted into a full table") }
        let token = EventToken(kind: .downstream, slot: connection.slot, generation: connection.generation)
        do {
            try poller.addConnection(descriptor, token: token)
        } catch {
            logger.warning("a client's connection cannot be watched", metadata: ["reason": "\(error)"])
            return closeDownstream(connection)
        }
        if let server { return startHandshake(connection, server) }
        guard !isDraining else { return retire(connection) }
        downstreamDeadlines.arm(connection, .keepAlive, nowNs: nowNs)
    }

    /// Starts or stops listening as the table fills, descriptors run out, or the worker drains. Called
    /// once a turn: the only place that touches the listeners' registration.
    func updateAccepting() {
        if acceptAgainNs > 0, nowNs >= acceptAgainNs { acceptAgainNs = 0 }
        updateInbox()
        let shouldAccept = admitsClients && !isFull && acceptAgainNs == 0
        guard shouldAccept != isAccepting else { return }
        isAccepting = shouldAccept
        for index in listeners.indices { shouldAccept ? watchListener(index) : poller.remove(listeners[index]) }
    }

    /// Accepts from one more listener, whose queue would otherwise have nobody. It stays open in the master.
    func addListener(_ listener: consuming FileDescriptor) {
        guard !isDraining else { return }
        listeners.append(listener.release())
        guard isAccepting else { return }
        watchListener(listeners.count - 1)
    }

    private func watchListener(_ index: Int) {
        do {
            try poller.addReadable(listeners[index], token: EventToken(kind: .listener, slot: index))
        } catch {
            logger.error("a listener cannot be watched", metadata: ["reason": "\(error)"])
        }
    }
}
