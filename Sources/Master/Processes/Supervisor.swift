import Logging
import ShmRing

/// Performs what `SupervisorState` decides: the master's loop from the first fork to its end.
///
/// One epoll watches the signals, and of each child its control channel and the handle that becomes readable
/// when it ends. Nothing here blocks but that epoll.
struct Supervisor: ~Copyable {
    /// Epoll's token of the signals; children have `2 × serial` and, for their end, one more.
    private static let signalsToken = UInt64.max

    private let heritage: Heritage
    private let spawner: Spawner
    private let logger: Logger
    private let signals: SignalSource
    private let poller: Poller
    private var state: SupervisorState
    /// By serial number, which is never used twice: an event of a child that is gone finds nothing.
    private var children: [UInt64: ChildProcess] = [:]
    private var nextSerial: UInt64 = 0
    private var exitStatus: Int32?

    /// - Parameter signals: Opened before anything could be forked.
    init(heritage: Heritage, signals: consuming SignalSource, logger: Logger) throws(Errno) {
        let poller = try Poller()
        try poller.watch(signals.descriptor, token: Self.signalsToken)
        self.poller = poller
        self.signals = signals
        self.heritage = heritage
        self.logger = logger
        spawner = Spawner(heritage: heritage)
        let patience = SupervisorState.Patience(
            drainNs: heritage.worker.timeouts.drainNs, flushNs: heritage.tracing?.exporter.flushTimeoutNs ?? 0)
        state = SupervisorState(
            workerCount: heritage.workerCount, hasExporter: heritage.tracing != nil, patience: patience)
    }

    /// Runs the balancer.
    /// - Returns: The master's exit status: 0 after an orderly end, 1 after a second signal.
    mutating func run() -> Int32 {
        perform(state.started())
        while true {
            if let exitStatus {
                logger.info("ended", metadata: ["status": "\(exitStatus)"])
                return exitStatus
            }
            for token in poller.wait(timeoutMs: timeoutMs) { handle(token) }
            perform(state.timePassed(nowNs: Clock.monotonicNs()))
        }
    }

    /// Until the state wants to be called, rounded up so that it is not called too early.
    private var timeoutMs: Int32 {
        guard let wakeAtNs = state.wakeAtNs else { return -1 }
        let nowNs = Clock.monotonicNs()
        guard wakeAtNs > nowNs else { return 0 }
        return Int32(clamping: (wakeAtNs - nowNs + 999_999) / 1_000_000)
    }

    // MARK: Events

    private mutating func handle(_ token: UInt64) {
        guard token != Self.signalsToken else { return handleSignals() }
        guard let child = children[token / 2] else { return }
        if token % 2 == 0 {
            readControl(child)
        } else {
            reap(child, serial: token / 2)
        }
    }

    private mutating func handleSignals() {
        while let request = signals.next() {
            switch request {
            case .terminate(let signal):
                logger.info("\(state.isServing ? "finishing" : "ending at once")", metadata: ["signal": "\(signal)"])
                perform(state.terminationRequested(nowNs: Clock.monotonicNs()))
            case .reload(let signal):
                logger.warning("reload is not supported, going on unchanged", metadata: ["signal": "\(signal)"])
            }
        }
    }

    private mutating func readControl(_ child: ChildProcess) {
        switch child.control.receive() {
        case .message(.ready): perform(state.childReady(child.slot, nowNs: Clock.monotonicNs()))
        case .message(.drain), .message(.drainSweeping), .nothing: break
        // Its end is reported by its handle; the channel would be readable for ever.
        case .peerGone: poller.ignore(child.control.descriptor)
        }
    }

    private mutating func reap(_ child: ChildProcess, serial: UInt64) {
        guard let end = child.reap() else { return }
        poller.ignore(child.control.descriptor)
        poller.ignore(child.endDescriptor)
        children[serial] = nil
        logEnd(of: child, end)
        perform(state.childEnded(child.slot, wasDone: end == .exited(status: 0), nowNs: Clock.monotonicNs()))
    }

    private func logEnd(of child: ChildProcess, _ end: ChildEnd) {
        let isExpected = !state.isServing && end == .exited(status: 0)
        logger.log(
            level: isExpected ? .debug : .error, "child ended",
            metadata: ["child": "\(child.slot)", "pid": "\(child.pid)", "end": "\(end)"])
    }

    // MARK: Actions

    private mutating func perform(_ actions: [SupervisorState.Action]) {
        for action in actions {
            switch action {
            case .spawn(let slot): spawn(slot)
            case .drain(let slot): running(slot)?.control.send(.drain)
            case .kill(let slot): kill(slot)
            case .announceReady: announceReady()
            case .exit(let status): exitStatus = status
            }
        }
    }

    private mutating func spawn(_ slot: ChildSlot) {
        do throws(Errno) {
            let child = try spawner.spawn(slot)
            try adopt(child)
            logger.debug("child started", metadata: ["child": "\(slot)", "pid": "\(child.pid)"])
        } catch {
            logger.error("cannot start a child", metadata: ["child": "\(slot)", "reason": "\(error)"])
            perform(state.childEnded(slot, nowNs: Clock.monotonicNs()))
        }
    }

    /// Watches a new child; one that cannot be watched does not stay.
    private mutating func adopt(_ child: ChildProcess) throws(Errno) {
        defer { nextSerial += 1 }
        do throws(Errno) {
            try poller.watch(child.control.descriptor, token: 2 * nextSerial)
            try poller.watch(child.endDescriptor, token: 2 * nextSerial + 1)
        } catch {
            ChildProcess.discard(child.pid)
            throw error
        }
        children[nextSerial] = child
    }

    private func kill(_ slot: ChildSlot) {
        guard let child = running(slot) else { return }
        logger.warning("killing a child", metadata: ["child": "\(slot)"])
        child.kill()
    }

    private func running(_ slot: ChildSlot) -> ChildProcess? {
        children.values.first { $0.slot == slot }
    }

    private func announceReady() {
        logger.info(
            "ready",
            metadata: [
                "address": "\(heritage.listeners.address)",
                "port": "\(heritage.listeners.address.port)",
                "workers": "\(heritage.workerCount)",
                "backends": "\(heritage.worker.backends.map(\.name).joined(separator: " "))",
                "tracing": "\(PlanText.describe(heritage.tracing?.exporter))",
            ])
    }
}
