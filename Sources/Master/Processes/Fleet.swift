import Glibc
import Logging
import ShmRing

/// One generation as it runs: what its children inherit, who they are, and how far it is.
///
/// The `Supervisor` owns it, watches its children and performs what `state` decides.
final class Fleet {
    let heritage: Heritage
    let spawner: Spawner
    var state: FleetState
    var watchdog: Watchdog
    private(set) var children: [ChildSlot: ChildProcess] = [:]
    /// How many processes have filled a worker slot.
    private(set) var incarnations: [UInt32]
    /// Who takes over the idle clients when this generation drains.
    var successor: Fleet?
    /// Listeners of this generation take no new connections any more, and their queues are to be emptied.
    var sweep: ListenerSweep?
    /// The sockets that the living worker of a slot was given.
    private var accepting: [[Int32]]

    var generation: UInt32 { heritage.generation }

    /// A generation that nobody has started yet.
    init(_ heritage: Heritage) {
        self.heritage = heritage
        spawner = Spawner(heritage: heritage)
        state = Self.initialState(heritage, hasExporter: heritage.tracing != nil)
        watchdog = Watchdog(limitNs: heritage.lifecycle.workerStallNs)
        incarnations = Array(repeating: 0, count: heritage.workerCount)
        accepting = Array(repeating: [], count: heritage.workerCount)
    }

    /// A generation that another image of this program started.
    init(adopting heritage: Heritage, children: [ChildProcess], ready: Set<ChildSlot>, incarnations: [UInt32]) {
        self.heritage = heritage
        spawner = Spawner(heritage: heritage)
        let alive = Set(children.map(\.slot))
        let fresh = Self.initialState(heritage, hasExporter: heritage.tracing != nil || alive.contains(.exporter))
        state = FleetState(adopting: alive, ready: ready, of: fresh, nowNs: Clock.monotonicNs())
        watchdog = Watchdog(limitNs: heritage.lifecycle.workerStallNs)
        self.incarnations = incarnations
        accepting = (0..<heritage.workerCount).map { heritage.listeningDescriptors(worker: $0) }
        for child in children { self.children[child.slot] = child }
    }

    private static func initialState(_ heritage: Heritage, hasExporter: Bool) -> FleetState {
        let patience = FleetState.Patience(
            drainNs: heritage.worker.timeouts.drainNs, flushNs: heritage.tracing?.exporter.flushTimeoutNs ?? 0)
        return FleetState(workerCount: heritage.workerCount, hasExporter: hasExporter, patience: patience)
    }

    /// Forks a child for a slot.
    /// - Throws: What the kernel refused.
    func spawn(_ slot: ChildSlot) throws(Errno) -> ChildProcess {
        guard case .worker(let index) = slot else {
            guard heritage.tracing != nil else { throw Errno(ENOTSUP) }
            let child = try spawner.spawn(slot, incarnation: 0)
            children[slot] = child
            return child
        }
        heritage.board.clear(index)
        // A worker that hangs before its first turn is one that hangs.
        heritage.board.place(index).turned(Clock.monotonicNs())
        accepting[index] = heritage.listeningDescriptors(worker: index)
        let child = try spawner.spawn(slot, incarnation: incarnations[index])
        incarnations[index] += 1
        children[slot] = child
        return child
    }

    /// The child was reaped.
    func forget(_ child: ChildProcess) {
        watchdog.ended(pid: child.pid)
        guard case .worker(let index) = child.slot else { return children[child.slot] = nil }
        heritage.board.clear(index)
        accepting[index] = []
        children[child.slot] = nil
    }

    /// Tells a child to finish.
    func drain(_ slot: ChildSlot) {
        guard let child = children[slot] else { return }
        guard case .worker(let index) = slot else { return _ = child.control.send(.drain) }
        child.control.send(sweep != nil ? .drainSweeping : .drain, passing: successor?.heritage.inboxWriter(for: index))
    }

    /// When `timePassed` has to be called; nil: no need.
    var wakeAtNs: UInt64? { [state.wakeAtNs, sweep?.wakeAtNs].compactMap(\.self).min() }

    /// Looks whether anything is on its way to listeners that are to be emptied, and tells the workers if not.
    func continueSweep(nowNs: UInt64) {
        guard let isOver = sweep?.timePassed(nowNs: nowNs, { $0.hasOpenHandshakes() }), isOver else { return }
        for index in state.aliveWorkers { children[.worker(index)]?.control.send(.sweepOver) }
    }

    /// Leaves word of a worker's death for the exporter, which closes the spans of its requests.
    func noteDeath(of child: ChildProcess, _ end: ChildEnd) {
        guard case .worker(let index) = child.slot, let segment = heritage.tracing?.segment else { return }
        let signal: Int32 =
            switch end {
            case .exited: 0
            case .killed(let signal): signal
            }
        segment.noteDeath(
            slot: index, incarnation: incarnations[index] - 1, signal: signal, unixNs: Clock.realtimeNs())
    }

    /// Gives listeners that nobody of this generation accepts from to its workers: a generation that was to take them
    /// over did not come to be.
    func adoptSurplusListeners() {
        for index in state.aliveWorkers {
            guard let child = children[.worker(index)] else { continue }
            let wanted = heritage.listeningDescriptors(worker: index)
            for descriptor in wanted where !accepting[index].contains(descriptor) {
                child.control.send(.listen, passing: descriptor)
            }
            accepting[index] = wanted
        }
    }

    /// Looks after workers whose loop does not turn.
    func watchWorkers(nowNs: UInt64, _ logger: Logger) {
        for index in state.aliveWorkers {
            guard let child = children[.worker(index)] else { continue }
            switch watchdog.judge(pid: child.pid, turnedNs: heritage.board.turnedNs(index), nowNs: nowNs) {
            case .fine: continue
            case .abort(let stalledNs):
                logger.error(
                    "a worker does not turn, ending it",
                    metadata: [
                        "child": "\(child.slot)", "pid": "\(child.pid)", "generation": "\(generation)",
                        "stalled_ms": "\(stalledNs / 1_000_000)", "serving": "\(heritage.activity(of: index))",
                    ])
                child.signal(SIGABRT)
            case .kill: child.kill()
            }
        }
    }
}
