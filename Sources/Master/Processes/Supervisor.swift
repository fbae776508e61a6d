import CShims
import Glibc
import Logging
import ShmRing
import Worker

/// Performs what `SupervisorState` and each generation's `FleetState` decide: the master's loop from the first fork
/// to its end.
///
/// One epoll watches the signals, and of each child its control channel and the handle that becomes readable
/// when it ends. Nothing here blocks but that epoll, and the resolver while a configuration is read anew.
/// Reloads are in Supervisor+Reload.
struct Supervisor: ~Copyable {
    /// Epoll's tokens; children have `2 × serial` and, for their end, one more.
    private static let signalsToken = UInt64.max
    static let preflightToken = UInt64.max - 1
    private static let dutiesToken = UInt64.max - 2

    let launch: Launch
    /// As the configuration in force says.
    var logger: Logger
    private let signals: SignalSource
    let duties: ServiceDuties
    /// Whether a generation has ever been ready.
    private var hasServed = false
    let poller: Poller
    var state: SupervisorState
    /// By generation.
    var fleets: [UInt32: Fleet] = [:]
    /// The number that was given last.
    var newestGeneration: UInt32
    /// By serial number, which is never used twice: an event of a child that is gone finds nothing.
    private var watched: [UInt64: (fleet: Fleet, child: ChildProcess)] = [:]
    private var nextSerial: UInt64 = 0
    private var nextWatchNs: UInt64 = .max
    private var nextTicketsNs: UInt64 = 0
    var preflight: Preflight?
    private var exitStatus: Int32?

    /// - Parameters:
    ///   - fleets: What there is at the beginning; not started yet, or taken over from another image.
    ///   - signals: Opened before anything could be forked, as what `duties` have open.
    init(
        _ launch: Launch, fleets: [Fleet], current: UInt32, newest: UInt32, signals: consuming SignalSource,
        duties: ServiceDuties, logger: Logger
    ) throws(Errno) {
        let poller = try Poller()
        try poller.watch(signals.descriptor, token: Self.signalsToken)
        for descriptor in duties.descriptors { try poller.watch(descriptor, token: Self.dutiesToken) }
        self.poller = poller
        self.signals = signals
        self.duties = duties
        self.launch = launch
        self.logger = logger
        newestGeneration = newest
        let draining = fleets.map(\.generation).filter { $0 != current }.sorted()
        guard let serving = fleets.first(where: { $0.generation == current }) else {
            preconditionFailure("no generation \(current)")
        }
        state = SupervisorState(current: current, draining: draining, limits: serving.heritage.lifecycle)
        for fleet in fleets { self.fleets[fleet.generation] = fleet }
    }

    /// Starts the first generation and runs the balancer.
    /// - Returns: The master's exit status: 0 after an orderly end, 1 after a second signal.
    mutating func run() -> Int32 {
        if let fleet = fleets[state.current] { perform(fleet.state.started(), fleet) }
        return loop()
    }

    /// Goes on where the previous image stopped: with its generations, and with the reload that it began.
    mutating func goOn(_ draining: Set<UInt32>) -> Int32 {
        hasServed = true
        for fleet in fleets.values { watchChildren(of: fleet) }
        for number in draining.sorted() {
            guard let fleet = fleets[number] else { continue }
            perform(fleet.state.drainRequested(nowNs: Clock.monotonicNs()), fleet)
        }
        perform(state.executed())
        return loop()
    }

    private mutating func loop() -> Int32 {
        while true {
            if let exitStatus {
                duties.ended()
                logger.info("ended", metadata: ["status": "\(exitStatus)"])
                return exitStatus
            }
            for token in poller.wait(timeoutMs: timeoutMs) { handle(token) }
            timePassed(nowNs: Clock.monotonicNs())
        }
    }

    /// Until something wants to be called, rounded up so that it is not called too early.
    private var timeoutMs: Int32 {
        let wishes = [state.wakeAtNs, duties.wakeAtNs] + fleets.values.map(\.wakeAtNs)
        let rhythms = [nextWatchNs, servesTLS ? nextTicketsNs : .max]
        let wakeAtNs = (wishes.compactMap(\.self) + rhythms).min() ?? .max
        guard wakeAtNs < .max else { return -1 }
        let nowNs = Clock.monotonicNs()
        guard wakeAtNs > nowNs else { return 0 }
        return Int32(clamping: (wakeAtNs - nowNs + 999_999) / 1_000_000)
    }

    private mutating func timePassed(nowNs: UInt64) {
        for fleet in fleets.values {
            fleet.continueSweep(nowNs: nowNs)
            perform(fleet.state.timePassed(nowNs: nowNs), fleet)
        }
        perform(state.timePassed(nowNs: nowNs))
        watchWorkers(nowNs: nowNs)
        moveTicketsOn(nowNs: nowNs)
        doDuties(nowNs: nowNs)
    }

    private mutating func doDuties(nowNs: UInt64) {
        let own = Set(fleets.values.flatMap { $0.children.values.map(\.pid) } + [preflight?.pid].compactMap(\.self))
        if duties.timePassed(stage, nowNs: nowNs, logger, isOwn: own.contains) {
            requestReload(.inPlace, reason: "the configuration has changed, or a file that it names")
        }
    }

    private var stage: ServiceDuties.Stage {
        guard state.isServing else { return .stopping }
        guard hasServed else { return .starting }
        return state.isReloading ? .reloading : .serving(generation: state.current)
    }

    private mutating func watchWorkers(nowNs: UInt64) {
        guard nextWatchNs == .max || nowNs >= nextWatchNs else { return }
        for fleet in fleets.values { fleet.watchWorkers(nowNs: nowNs, logger) }
        let period = fleets.values.compactMap(\.watchdog.periodNs).min()
        nextWatchNs = period.map { nowNs + $0 } ?? .max
    }

    private var servesTLS: Bool { fleets.values.contains { $0.heritage.worker.tlsServer != nil } }

    /// Workers keep no key of long ago; neither does the process that they are forked from.
    private mutating func moveTicketsOn(nowNs: UInt64) {
        guard servesTLS, nowNs >= nextTicketsNs else { return }
        TLSPlan.tickets.advance()
        nextTicketsNs = nowNs + TicketKeys.epochSeconds * 1_000_000_000 / 16
    }

    // MARK: Events

    private mutating func handle(_ token: UInt64) {
        switch token {
        case Self.signalsToken: handleSignals()
        case Self.preflightToken: preflightMayHaveEnded()
        // What it is about is looked up each time anyway.
        case Self.dutiesToken: break
        default:
            guard let (fleet, child) = watched[token / 2] else { return }
            token % 2 == 0 ? readControl(fleet, child) : reap(fleet, child, serial: token / 2)
        }
    }

    private mutating func handleSignals() {
        while let request = signals.next() {
            switch request {
            case .terminate(let signal):
                logger.info("\(state.isServing ? "finishing" : "ending at once")", metadata: ["signal": "\(signal)"])
                perform(state.terminationRequested())
            case .reload(let reload, let signal):
                requestReload(reload, reason: signal)
            }
        }
    }

    private mutating func readControl(_ fleet: Fleet, _ child: ChildProcess) {
        switch child.control.receive() {
        case .message(.ready): perform(fleet.state.childReady(child.slot, nowNs: Clock.monotonicNs()), fleet)
        case .message, .nothing: break
        // Its end is reported by its handle; the channel would be readable for ever.
        case .peerGone: poller.ignore(child.control.descriptor)
        }
    }

    private mutating func reap(_ fleet: Fleet, _ child: ChildProcess, serial: UInt64) {
        guard let end = child.reap() else { return }
        poller.ignore(child.control.descriptor)
        poller.ignore(child.endDescriptor)
        watched[serial] = nil
        let isDone = end == .exited(status: 0)
        logEnd(of: child, end, isExpected: isDone && !fleet.state.isServing, fleet)
        if !isDone { fleet.noteDeath(of: child, end) }
        fleet.forget(child)
        perform(fleet.state.childEnded(child.slot, wasDone: isDone, nowNs: Clock.monotonicNs()), fleet)
    }

    private func logEnd(of child: ChildProcess, _ end: ChildEnd, isExpected: Bool, _ fleet: Fleet) {
        logger.log(
            level: isExpected ? .debug : .error, "child ended",
            metadata: [
                "child": "\(child.slot)", "generation": "\(fleet.generation)", "pid": "\(child.pid)", "end": "\(end)",
            ])
    }

    // MARK: Actions

    private mutating func perform(_ actions: [FleetState.Action], _ fleet: Fleet) {
        for action in actions {
            switch action {
            case .spawn(let slot): spawn(slot, fleet)
            case .drain(let slot): fleet.drain(slot)
            case .kill(let slot): kill(slot, fleet)
            case .announceReady:
                perform(state.generationReady(fleet.generation, nowNs: Clock.monotonicNs()))
            case .ended(let status):
                fleets[fleet.generation] = nil
                logger.debug("generation ended", metadata: ["generation": "\(fleet.generation)"])
                perform(state.generationEnded(fleet.generation, status: status))
            }
        }
    }

    mutating func perform(_ actions: [SupervisorState.Action]) {
        for action in actions {
            switch action {
            case .startPreflight: startPreflight()
            case .stopPreflight: stopPreflight()
            case .execute: execute()
            case .openCandidate: openCandidate()
            case .announce(let generation): announce(generation)
            case .reportLate(let generation): reportLate(generation)
            case .drain(let generation, let successor): drain(generation, successor: successor)
            case .cutShort(let generation): cutShort(generation)
            case .end(let generation): end(generation)
            case .exit(let status): exitStatus = status
            }
        }
    }

    /// Starts the children of a new generation.
    mutating func start(_ fleet: Fleet) {
        perform(fleet.state.started(), fleet)
    }

    private mutating func drain(_ generation: UInt32, successor: UInt32?) {
        guard let fleet = fleets[generation] else { return }
        fleet.successor = successor.flatMap { fleets[$0] }
        closeUnsharedListeners(of: fleet)
        perform(fleet.state.drainRequested(nowNs: Clock.monotonicNs()), fleet)
        fleet.successor?.heritage.closeInboxes()
        fleet.heritage.closeInboxes()
        fleet.successor = nil
    }

    private mutating func cutShort(_ generation: UInt32) {
        guard let fleet = fleets[generation] else { return }
        logger.warning(
            "too many generations drain, ending the oldest",
            metadata: ["generation": "\(generation)", "workers": "\(fleet.state.aliveWorkers.count)"])
        perform(fleet.state.cutShort(nowNs: Clock.monotonicNs()), fleet)
    }

    private mutating func end(_ generation: UInt32) {
        guard let fleet = fleets[generation] else { return }
        perform(fleet.state.endRequested(nowNs: Clock.monotonicNs()), fleet)
    }

    private mutating func spawn(_ slot: ChildSlot, _ fleet: Fleet) {
        do throws(Errno) {
            let child = try fleet.spawn(slot)
            do throws(Errno) {
                try watch(child, of: fleet)
            } catch {
                // One that cannot be watched does not stay.
                ChildProcess.discard(child.pid)
                fleet.forget(child)
                throw error
            }
            logger.debug(
                "child started",
                metadata: ["child": "\(slot)", "generation": "\(fleet.generation)", "pid": "\(child.pid)"])
        } catch {
            logger.error("cannot start a child", metadata: ["child": "\(slot)", "reason": "\(error)"])
            perform(fleet.state.childEnded(slot, nowNs: Clock.monotonicNs()), fleet)
        }
    }

    private mutating func watchChildren(of fleet: Fleet) {
        for child in fleet.children.values {
            do throws(Errno) {
                try watch(child, of: fleet)
            } catch {
                logger.error("a child cannot be watched", metadata: ["child": "\(child.slot)", "reason": "\(error)"])
            }
        }
    }

    private mutating func watch(_ child: ChildProcess, of fleet: Fleet) throws(Errno) {
        defer { nextSerial += 1 }
        try poller.watch(child.control.descriptor, token: 2 * nextSerial)
        try poller.watch(child.endDescriptor, token: 2 * nextSerial + 1)
        watched[nextSerial] = (fleet, child)
    }

    private func kill(_ slot: ChildSlot, _ fleet: Fleet) {
        guard let child = fleet.children[slot] else { return }
        logger.warning("killing a child", metadata: ["child": "\(slot)", "generation": "\(fleet.generation)"])
        child.kill()
    }

    private mutating func announce(_ generation: UInt32) {
        guard let fleet = fleets[generation] else { return }
        hasServed = true
        let heritage = fleet.heritage
        let address = heritage.listeners[0].address
        logger.info(
            "ready",
            metadata: [
                "address": "\(address)",
                "port": "\(address.port)",
                "tls_port": "\(heritage.worker.tlsPort.map(String.init) ?? "none")",
                "workers": "\(heritage.workerCount)",
                "backends": "\(heritage.worker.backends.map(\.name).joined(separator: " "))",
                "tracing": "\(PlanText.describe(heritage.tracing?.exporter))",
                "generation": "\(generation)",
            ])
    }
}
