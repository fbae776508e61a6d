/// Decides what happens to the children of one generation, without any system call.
///
///     serving ──drain──► drainingWorkers ──all workers gone──► flushing ──exporter gone──► ended (0)
///        │                  │  deadline, or cut short: kill workers  │  deadline: kill exporter
///        └──────────────────┴──────────── end: kill all ─────────────┴──► ending ──all gone──► ended (1)
///
/// While serving, a child that ends is started again after its backoff. While workers drain, only the
/// exporter still is: spans of the last requests have to get out. A child that was killed is given a second
/// to disappear; then the master goes without it.
/// `Supervisor` performs the actions, in order, and reports what comes of them.
struct FleetState {
    /// Time limits of an orderly end, in nanoseconds.
    struct Patience {
        /// What workers are told to keep to.
        var drainNs: UInt64
        /// What the exporter is told to keep to.
        var flushNs: UInt64
        /// On top of both, for children to end by themselves; also how long a killed child may take.
        var graceNs: UInt64 = 1_000_000_000
    }

    enum Action: Equatable {
        case spawn(ChildSlot)
        /// Ask the child to finish and exit.
        case drain(ChildSlot)
        case kill(ChildSlot)
        /// Every worker is ready for the first time.
        case announceReady
        /// Nothing of the generation is left; the last action. Status 1 when its end was cut short.
        case ended(status: Int32)
    }

    private enum Phase: Equatable {
        case serving
        case drainingWorkers(deadlineNs: UInt64)
        case flushing(deadlineNs: UInt64)
        /// Everything alive was killed.
        case ending(deadlineNs: UInt64, status: Int32)
        case ended
    }

    private enum ChildState: Equatable {
        case absent
        case waiting(untilNs: UInt64)
        case starting
        case ready(sinceNs: UInt64)

        var isAlive: Bool {
            switch self {
            case .absent, .waiting: false
            case .starting, .ready: true
            }
        }

        /// Alive, or about to be.
        var isExpected: Bool { self != .absent }

        var isReady: Bool {
            if case .ready = self { true } else { false }
        }
    }

    private struct Child {
        let slot: ChildSlot
        var state = ChildState.absent
        var backoff = RestartBackoff()

        func isDue(nowNs: UInt64) -> Bool {
            if case .waiting(let untilNs) = state { nowNs >= untilNs } else { false }
        }

        /// How long it has been ready, 0 if it is not.
        func healthNs(nowNs: UInt64) -> UInt64 {
            if case .ready(let sinceNs) = state { nowNs - sinceNs } else { 0 }
        }
    }

    private let patience: Patience
    private var phase = Phase.serving
    /// Workers in order, then the exporter if there is one.
    private var children: [Child]
    private var isAnnounced = false

    init(workerCount: Int, hasExporter: Bool, patience: Patience) {
        self.patience = patience
        let workers = (0..<workerCount).map { Child(slot: .worker($0)) }
        children = workers + (hasExporter ? [Child(slot: .exporter)] : [])
    }

    /// A generation whose children run already, because another image of this program started them.
    /// Those that are missing are started with the next `timePassed`.
    /// - Parameter ready: Those of them that had reported ready.
    init(adopting alive: Set<ChildSlot>, ready: Set<ChildSlot>, of other: FleetState, nowNs: UInt64) {
        self = other
        isAnnounced = true
        for index in children.indices {
            let slot = children[index].slot
            guard alive.contains(slot) else {
                children[index].state = .waiting(untilNs: nowNs)
                continue
            }
            children[index].state = ready.contains(slot) ? .ready(sinceNs: nowNs) : .starting
        }
    }

    /// True until it was told to drain or end.
    var isServing: Bool { phase == .serving }

    /// When `timePassed` has to be called, in nanoseconds of the monotonic clock; nil: no need.
    var wakeAtNs: UInt64? {
        let restarts = children.compactMap { child -> UInt64? in
            if case .waiting(let untilNs) = child.state { untilNs } else { nil }
        }
        return (restarts + [deadlineNs].compactMap(\.self)).min()
    }

    // MARK: Events

    /// The master is set up.
    mutating func started() -> [Action] {
        children.indices.map { spawn(at: $0) }
    }

    mutating func childReady(_ slot: ChildSlot, nowNs: UInt64) -> [Action] {
        let index = index(of: slot)
        guard children[index].state == .starting else { return [] }
        children[index].state = .ready(sinceNs: nowNs)
        guard !isAnnounced, isServing, workers.allSatisfy(\.state.isReady) else { return [] }
        isAnnounced = true
        return [.announceReady]
    }

    /// A child has ended and was reaped, or could not be started at all.
    /// - Parameter wasDone: It ended by itself with status 0: while the exporter is to finish, it has.
    mutating func childEnded(_ slot: ChildSlot, wasDone: Bool = false, nowNs: UInt64) -> [Action] {
        let index = index(of: slot)
        let delayNs = children[index].backoff.childDied(healthNs: children[index].healthNs(nowNs: nowNs))
        children[index].state = canRestart(slot, wasDone: wasDone) ? .waiting(untilNs: nowNs + delayNs) : .absent
        return timePassed(nowNs: nowNs)
    }

    /// Restarts what is due, enforces deadlines and moves on to the next phase where it can.
    mutating func timePassed(nowNs: UInt64) -> [Action] {
        restartDue(nowNs: nowNs) + enforceDeadline(nowNs: nowNs) + advance(nowNs: nowNs)
    }

    /// Requests in flight are to be finished, and nothing new is to come in.
    mutating func drainRequested(nowNs: UInt64) -> [Action] {
        switch phase {
        case .serving: beginDrain(nowNs: nowNs)
        case .drainingWorkers, .flushing, .ending, .ended: []
        }
    }

    /// Its workers have had their time; only the spans are still delivered.
    mutating func cutShort(nowNs: UInt64) -> [Action] {
        switch phase {
        case .serving, .drainingWorkers:
            let late = workers.filter(\.state.isAlive)
            return late.map { .kill($0.slot) } + beginFlush(nowNs: nowNs)
        case .flushing, .ending, .ended: return []
        }
    }

    /// Everything is to be over at once.
    mutating func endRequested(nowNs: UInt64) -> [Action] {
        switch phase {
        case .serving, .drainingWorkers, .flushing: end(status: 1, nowNs: nowNs)
        case .ending, .ended: []
        }
    }

    /// Workers that could take up more listeners now.
    var aliveWorkers: [Int] {
        children.compactMap { child in
            if case .worker(let index) = child.slot, child.state.isAlive { index } else { nil }
        }
    }

    func isReady(_ slot: ChildSlot) -> Bool { children[index(of: slot)].state.isReady }

    // MARK: Policy

    private var workers: ArraySlice<Child> { children.prefix { $0.slot != .exporter } }

    private var deadlineNs: UInt64? {
        switch phase {
        case .serving, .ended: nil
        case .drainingWorkers(let deadlineNs), .flushing(let deadlineNs), .ending(let deadlineNs, _): deadlineNs
        }
    }

    private func canRestart(_ slot: ChildSlot, wasDone: Bool) -> Bool {
        switch phase {
        case .serving: true
        case .drainingWorkers: slot == .exporter
        // What it had not delivered is still in the segment.
        case .flushing: slot == .exporter && !wasDone
        case .ending, .ended: false
        }
    }

    private mutating func restartDue(nowNs: UInt64) -> [Action] {
        let due = children.indices.filter { children[$0].isDue(nowNs: nowNs) }
        let spawns = due.map { spawn(at: $0) }
        if case .flushing = phase, !spawns.isEmpty { return spawns + [.drain(.exporter)] }
        return spawns
    }

    private mutating func enforceDeadline(nowNs: UInt64) -> [Action] {
        guard let deadlineNs, nowNs >= deadlineNs else { return [] }
        switch phase {
        case .serving, .ended: return []
        case .drainingWorkers:
            // A worker that not even SIGKILL ends within the grace is left behind.
            return cutShort(nowNs: nowNs)
        case .flushing: return end(status: 0, nowNs: nowNs)
        case .ending(_, let status): return finish(status: status)
        }
    }

    private mutating func advance(nowNs: UInt64) -> [Action] {
        switch phase {
        case .serving, .ended: return []
        case .drainingWorkers: return workers.contains(where: \.state.isAlive) ? [] : beginFlush(nowNs: nowNs)
        case .flushing: return children.contains(where: \.state.isExpected) ? [] : finish(status: 0)
        case .ending(_, let status): return children.contains(where: \.state.isAlive) ? [] : finish(status: status)
        }
    }

    private mutating func beginDrain(nowNs: UInt64) -> [Action] {
        phase = .drainingWorkers(deadlineNs: nowNs + patience.drainNs + patience.graceNs)
        for index in children.indices where isWorker(index) && !children[index].state.isAlive {
            children[index].state = .absent
        }
        return workers.filter(\.state.isAlive).map { .drain($0.slot) } + advance(nowNs: nowNs)
    }

    /// An exporter that waits for its restart is started at once: there may be spans to deliver.
    private mutating func beginFlush(nowNs: UInt64) -> [Action] {
        phase = .flushing(deadlineNs: nowNs + patience.flushNs + patience.graceNs)
        guard let index = children.firstIndex(where: { $0.slot == .exporter }) else { return advance(nowNs: nowNs) }
        let restart = children[index].state.isAlive ? [] : [spawn(at: index)]
        return restart + [.drain(.exporter)]
    }

    private mutating func end(status: Int32, nowNs: UInt64) -> [Action] {
        let alive = children.filter(\.state.isAlive)
        for index in children.indices where !children[index].state.isAlive { children[index].state = .absent }
        phase = .ending(deadlineNs: nowNs + patience.graceNs, status: status)
        return alive.map { .kill($0.slot) } + advance(nowNs: nowNs)
    }

    private mutating func finish(status: Int32) -> [Action] {
        phase = .ended
        return [.ended(status: status)]
    }

    private mutating func spawn(at index: Int) -> Action {
        children[index].state = .starting
        return .spawn(children[index].slot)
    }

    private func isWorker(_ index: Int) -> Bool { children[index].slot != .exporter }

    private func index(of slot: ChildSlot) -> Int {
        guard let index = children.firstIndex(where: { $0.slot == slot }) else {
            preconditionFailure("no child \(slot)")
        }
        return index
    }
}
