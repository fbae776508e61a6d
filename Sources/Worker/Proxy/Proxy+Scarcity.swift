import ShmRing

/// Peers that must wait while streams hold all the memory that they may: nothing is read from them, so that their
/// kernel holds what they send. It ends when clients have taken enough, or those that take nothing are gone
/// (`HTTP2Context.relieveMemory`), or after a second.
extension Proxy {
    /// How long a turn may be while memory is scarce.
    static let scarcityTurnNs: UInt64 = 20_000_000

    /// - Returns: Whether a client's connection is to be read later.
    func mustWait(_ connection: DownstreamConnection, _ session: HTTP2Session) -> Bool {
        guard http2.mustWait(session) else { return false }
        if !session.isPostponed {
            session.isPostponed = true
            postponed.append(.continueDownstream(slot: connection.slot, generation: connection.generation))
        }
        return true
    }

    /// - Returns: Whether a backend's connection is to be read later.
    func mustWait(_ connection: UpstreamConnection, _ session: HTTP2Session) -> Bool {
        guard http2.mustWait(session) else { return false }
        if !session.isPostponed {
            session.isPostponed = true
            postponed.append(.continueUpstream(slot: connection.slot, generation: connection.generation))
            // A sign of life would not be seen.
            switch upstreamDeadlines.armed(connection) {
            case .ping, .pingAnswer: upstreamDeadlines.disarm(connection)
            default: break
            }
        }
        return true
    }

    /// There is room again.
    func resumePostponed() {
        guard !postponed.isEmpty, !http2.isWaitingForMemory else { return }
        for work in postponed {
            switch work {
            case .continueDownstream(let slot, let generation):
                downstreams.occupant(slot, generation: generation)?.session?.isPostponed = false
            case .continueUpstream(let slot, let generation):
                guard let connection = upstreams.occupant(slot, generation: generation),
                    let session = connection.session
                else { continue }
                session.isPostponed = false
                armSilence(connection, session)
            case .connectWaiter, .serveLine, .reacquire: continue
            }
            deferred.append(work)
        }
        postponed.removeAll(keepingCapacity: true)
    }
}
