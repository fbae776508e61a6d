/// Decides which generations of children there are: reloads and the end, without any system call.
///
///                       preflight ──passed──► (execve; the new image goes on with a candidate)
///                         ▲   │ failed
///                 SIGUSR2 │   ▼
///       serving ──────────┴► idle ──SIGHUP──► candidate ──all workers ready──► it is current, the old one drains
///                             ▲                   │ not in time
///                             └───────────────────┘ the candidate drains, the old one is still current
///
///       SIGTERM from anywhere: every generation drains; a second one: everything ends at once.
///
/// One reload at a time: another request is kept and begins when this one is over. Draining generations are
/// bounded in number: beyond it, the oldest has its workers ended; its exporter still delivers.
/// `Supervisor` performs the actions, in order, and reports what comes of them.
struct SupervisorState {
    /// The order says which request stands for both.
    enum Reload: Int, Comparable {
        /// Configuration and certificates anew, by the program that runs (SIGHUP).
        case inPlace
        /// The program on disk as well (SIGUSR2).
        case newProgram

        static func < (left: Reload, right: Reload) -> Bool { left.rawValue < right.rawValue }
    }

    enum Action: Equatable {
        /// Run the program on disk with `--check`; report `preflightEnded`.
        case startPreflight
        case stopPreflight
        /// Become the program on disk; report `executionFailed` if that does not work.
        case execute
        /// Read the configuration and start a generation; report `candidateStarted` or `candidateRefused`.
        case openCandidate
        /// Tell that a generation serves now.
        case announce(generation: UInt32)
        /// Tell that a generation was not ready in time, and that its predecessor goes on.
        case reportLate(generation: UInt32)
        /// Let a generation finish; its idle clients go to the successor if there is one.
        case drain(generation: UInt32, successor: UInt32?)
        /// End the workers of a generation that drains.
        case cutShort(generation: UInt32)
        /// End everything of a generation at once.
        case end(generation: UInt32)
        /// The master is done; the last action.
        case exit(status: Int32)
    }

    private enum Phase: Equatable {
        case idle
        case preflight(deadlineNs: UInt64)
        case executing
        case opening
        case candidate(generation: UInt32, deadlineNs: UInt64)
        case shuttingDown(status: Int32)
        case ended
    }

    private var limits: LifecyclePolicy
    private var phase = Phase.idle
    private(set) var current: UInt32
    /// The oldest first.
    private var draining: [UInt32] = []
    private var cut: Set<UInt32> = []
    private var pending: Reload?

    /// - Parameters:
    ///   - current: The generation that serves.
    ///   - draining: Those before it that are not over yet, the oldest first.
    init(current: UInt32, draining: [UInt32] = [], limits: LifecyclePolicy) {
        self.current = current
        self.draining = draining
        self.limits = limits
    }

    /// True until termination was asked for.
    var isServing: Bool {
        switch phase {
        case .idle, .preflight, .executing, .opening, .candidate: true
        case .shuttingDown, .ended: false
        }
    }

    /// True from a request to its end, whatever that is.
    var isReloading: Bool {
        switch phase {
        case .preflight, .executing, .opening, .candidate: true
        case .idle, .shuttingDown, .ended: false
        }
    }

    /// The new configuration may say otherwise.
    mutating func changeLimits(_ limits: LifecyclePolicy) {
        self.limits = limits
    }

    /// When `timePassed` has to be called, in nanoseconds of the monotonic clock; nil: no need.
    var wakeAtNs: UInt64? {
        switch phase {
        case .preflight(let deadlineNs), .candidate(_, let deadlineNs): deadlineNs
        case .idle, .executing, .opening, .shuttingDown, .ended: nil
        }
    }

    // MARK: Reload

    /// - Returns: Nothing when the request has to wait, or comes too late.
    mutating func reloadRequested(_ reload: Reload, nowNs: UInt64) -> [Action] {
        guard isServing else { return [] }
        guard phase == .idle else {
            pending = max(pending ?? reload, reload)
            return []
        }
        switch reload {
        case .inPlace: return open()
        case .newProgram:
            phase = .preflight(deadlineNs: nowNs + limits.readyTimeoutNs)
            return [.startPreflight]
        }
    }

    mutating func preflightEnded(passed: Bool, nowNs: UInt64) -> [Action] {
        guard case .preflight = phase else { return [] }
        guard passed else { return becomeIdle(nowNs: nowNs) }
        phase = .executing
        return [.execute]
    }

    /// The program could not be executed, or state not be handed to it: everything is as it was.
    mutating func executionFailed(nowNs: UInt64) -> [Action] {
        guard phase == .executing else { return [] }
        return becomeIdle(nowNs: nowNs)
    }

    /// This is the new image: the reload that its predecessor began goes on.
    mutating func executed() -> [Action] { open() }

    mutating func candidateStarted(_ generation: UInt32, nowNs: UInt64) {
        guard phase == .opening else { preconditionFailure("generation \(generation) was not asked for") }
        phase = .candidate(generation: generation, deadlineNs: nowNs + limits.readyTimeoutNs)
    }

    /// The configuration cannot be used, or the system refuses what it asks for.
    mutating func candidateRefused(nowNs: UInt64) -> [Action] {
        guard phase == .opening else { return [] }
        return becomeIdle(nowNs: nowNs)
    }

    /// All workers of a generation are ready for the first time.
    mutating func generationReady(_ generation: UInt32, nowNs: UInt64) -> [Action] {
        switch phase {
        case .candidate(generation, _): promote(generation, nowNs: nowNs)
        case .shuttingDown, .ended: []
        case .idle, .preflight, .executing, .opening, .candidate:
            generation == current ? [.announce(generation: generation)] : []
        }
    }

    // MARK: End

    /// SIGTERM, SIGINT or SIGQUIT arrived.
    mutating func terminationRequested() -> [Action] {
        switch phase {
        case .idle, .executing, .opening: return shutDown([])
        case .preflight: return [.stopPreflight] + shutDown([])
        case .candidate(let generation, _): return shutDown([generation])
        case .shuttingDown:
            phase = .shuttingDown(status: 1)
            return draining.map { .end(generation: $0) }
        case .ended: return []
        }
    }

    /// Nothing of a generation is left.
    mutating func generationEnded(_ generation: UInt32, status: Int32) -> [Action] {
        draining.removeAll { $0 == generation }
        cut.remove(generation)
        guard case .shuttingDown(let soFar) = phase else { return [] }
        phase = .shuttingDown(status: max(soFar, status))
        guard draining.isEmpty else { return [] }
        phase = .ended
        return [.exit(status: max(soFar, status))]
    }

    /// Gives up on what takes too long.
    mutating func timePassed(nowNs: UInt64) -> [Action] {
        guard let wakeAtNs, nowNs >= wakeAtNs else { return [] }
        switch phase {
        case .preflight: return [.stopPreflight] + becomeIdle(nowNs: nowNs)
        case .candidate(let generation, _):
            let actions = [Action.reportLate(generation: generation)] + retire(generation, successor: current)
            return actions + becomeIdle(nowNs: nowNs)
        case .idle, .executing, .opening, .shuttingDown, .ended: return []
        }
    }

    // MARK: Policy

    private mutating func open() -> [Action] {
        phase = .opening
        return [.openCandidate]
    }

    private mutating func becomeIdle(nowNs: UInt64) -> [Action] {
        phase = .idle
        guard let next = pending else { return [] }
        pending = nil
        return reloadRequested(next, nowNs: nowNs)
    }

    private mutating func promote(_ generation: UInt32, nowNs: UInt64) -> [Action] {
        let old = current
        current = generation
        let actions = [Action.announce(generation: generation)] + retire(old, successor: generation)
        return actions + becomeIdle(nowNs: nowNs)
    }

    private mutating func retire(_ generation: UInt32, successor: UInt32) -> [Action] {
        draining.append(generation)
        let excessCount = max(0, draining.count - limits.drainingGenerationsMax)
        let excess = draining.prefix(excessCount).filter { !cut.contains($0) }
        cut.formUnion(excess)
        return [.drain(generation: generation, successor: successor)] + excess.map { .cutShort(generation: $0) }
    }

    /// Those that drain already go on with it.
    private mutating func shutDown(_ others: [UInt32]) -> [Action] {
        let serving = [current] + others
        draining += serving
        pending = nil
        phase = .shuttingDown(status: 0)
        return serving.map { .drain(generation: $0, successor: nil) }
    }
}
