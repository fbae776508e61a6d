import Logging
import ShmRing

/// Connections that another worker hands over come in like accepted ones.
extension Proxy {
    /// Taken in one turn, as with `acceptFrom`.
    private static let adoptionsPerTurn = 64

    /// Takes what waits in the inbox, as far as there is room.
    func serveInbox() {
        for _ in 0..<Self.adoptionsPerTurn {
            guard isReadingInbox, !isFull else { return }
            guard takeFromInbox() else { return }
        }
    }

    /// - Returns: Whether there may be more.
    private func takeFromInbox() -> Bool {
        guard let reading = inbox?.receive() else { return false }
        switch consume reading {
        case .connection(let descriptor):
            adopt(descriptor)
            return true
        case .exhausted:
            pauseAccepting(reason: "no descriptor is left for a connection that was handed over")
        case .closed:
            stopReadingInbox()
            inbox = nil
        case .nothing: break
        }
        return false
    }

    private func adopt(_ descriptor: consuming FileDescriptor) {
        // One that its client has reset meanwhile has no peer any more.
        guard let peer = Socket.peerAddress(descriptor.rawValue) else { return }
        admit(descriptor.release(), peer)
    }

    /// Reads the inbox while there is room: what does not fit waits in the kernel.
    func updateInbox() {
        guard let descriptor = inbox?.descriptor else { return }
        let shouldRead = !isFull && acceptAgainNs == 0
        guard shouldRead != isReadingInbox else { return }
        guard shouldRead else { return stopReadingInbox() }
        do {
            try poller.addReadable(descriptor, token: EventToken(kind: .inbox, slot: 0))
            isReadingInbox = true
        } catch {
            logger.error("the inbox cannot be watched", metadata: ["reason": "\(error)"])
            inbox = nil
        }
    }

    private func stopReadingInbox() {
        guard isReadingInbox, let descriptor = inbox?.descriptor else { return }
        poller.remove(descriptor)
        isReadingInbox = false
    }

    /// Before the end: whatever was handed over last is not left behind.
    /// - Returns: Whether something came.
    func takesInbox() -> Bool {
        let before = downstreams.count
        serveInbox()
        return downstreams.count > before
    }
}
