import Logging
import ShmRing

/// Reloads: a new generation beside the old one, with or without a new program.
extension Supervisor {
    mutating func requestReload(_ reload: SupervisorState.Reload, reason: String) {
        guard state.isServing else {
            logger.warning("not reloading, the end has begun", metadata: ["reason": "\(reason)"])
            return
        }
        logger.info("reloading", metadata: ["reason": "\(reason)", "generation": "\(state.current)"])
        perform(state.reloadRequested(reload, nowNs: Clock.monotonicNs()))
    }

    // MARK: A new program

    mutating func startPreflight() {
        guard let executable = launch.executable else {
            return preflightFailed("the program's file cannot be found: \(launch.arguments.first ?? "no name")")
        }
        do throws(Errno) {
            let preflight = try Preflight(executable, launch)
            try poller.watch(preflight.endDescriptor, token: Self.preflightToken)
            self.preflight = preflight
        } catch {
            preflightFailed("cannot start \(executable): \(error)")
        }
    }

    mutating func stopPreflight() {
        guard let preflight else { return }
        logger.error("reload failed, going on unchanged", metadata: ["reason": "the check takes too long"])
        preflight.stop()
        forgetPreflight()
    }

    mutating func preflightMayHaveEnded() {
        guard let preflight, let (end, lastLine) = preflight.result() else { return }
        forgetPreflight()
        guard end == .exited(status: 0) else {
            return preflightFailed(lastLine.isEmpty ? "the check of the new program ended with \(end)" : lastLine)
        }
        perform(state.preflightEnded(passed: true, nowNs: Clock.monotonicNs()))
    }

    private mutating func forgetPreflight() {
        if let preflight { poller.ignore(preflight.endDescriptor) }
        preflight = nil
    }

    private mutating func preflightFailed(_ reason: String) {
        logger.error("reload failed, going on unchanged", metadata: ["reason": "\(reason)"])
        perform(state.preflightEnded(passed: false, nowNs: Clock.monotonicNs()))
    }

    /// Becomes the program on disk. Comes back only if that fails.
    mutating func execute() {
        let handover = Handover(
            fleets: fleets.values.sorted { $0.generation < $1.generation }, current: state.current,
            newest: newestGeneration, instanceBytes: launch.instanceBytes)
        do throws(StartFailure) {
            let memory = try handover.offer()
            let error = ProgramStart.become(launch.executable ?? "", launch.arguments)
            withExtendedLifetime(memory) {}
            throw .runTime("cannot execute \(launch.executable ?? ""): \(error)")
        } catch {
            handover.withdraw()
            logger.error("reload failed, going on unchanged", metadata: ["reason": "\(error.message)"])
            perform(state.executionFailed(nowNs: Clock.monotonicNs()))
        }
    }

    // MARK: A new generation

    /// Reads the configuration anew and starts a generation with it.
    mutating func openCandidate() {
        do throws(StartFailure) {
            let configuration = try launch.configuration()
            duties.configurationRead(configuration.service.watched, nowNs: Clock.monotonicNs())
            let open = fleets.values.sorted { $0.generation > $1.generation }.flatMap(\.heritage.listeners)
            let heritage = try Heritage(configuration, generation: newestGeneration + 1, sharing: open)
            try heritage.openInboxes()
            newestGeneration += 1
            logger = configuration.log.logger(role: "master")
            for warning in configuration.warnings { logger.warning("\(warning)") }
            let fleet = Fleet(heritage)
            fleets[fleet.generation] = fleet
            state.changeLimits(heritage.lifecycle)
            state.candidateStarted(fleet.generation, nowNs: Clock.monotonicNs())
            start(fleet)
        } catch {
            logger.error(
                "reload failed, going on unchanged",
                metadata: ["reason": "\(error.message)", "generation": "\(state.current)"])
            perform(state.candidateRefused(nowNs: Clock.monotonicNs()))
        }
    }

    /// The candidate did not make it; what it was to take over stays with the generation that serves.
    func reportLate(_ generation: UInt32) {
        logger.error(
            "reload failed, the old generation goes on",
            metadata: [
                "reason": "the new workers were not ready within --ready-timeout", "generation": "\(state.current)",
                "failed_generation": "\(generation)",
            ])
        fleets[state.current]?.adoptSurplusListeners()
    }

    /// Listeners that only this generation has take no new connections any more; its workers empty their queues. What
    /// is in the queue of a service manager's socket stays there for whoever is started next.
    func closeUnsharedListeners(of fleet: Fleet) {
        let others = fleets.values.filter { $0 !== fleet && $0.state.isServing }.flatMap(\.heritage.listeners)
        let unshared = fleet.heritage.listeners.filter { set in !set.isInherited && !others.contains { $0 === set } }
        guard !unshared.isEmpty else { return }
        for set in unshared { set.close() }
        fleet.sweep = ListenerSweep(unshared, nowNs: Clock.monotonicNs())
    }
}
