import Logging
import ShmRing

/// What the master owes to its surroundings besides looking after its children: it tells the service manager how
/// it fares, keeps the pid file, reaps orphans as PID 1, and watches the configuration file and those that it names. Each only where it is
/// asked for.
///
/// The loop watches `descriptors` (what is readable is read in `timePassed`, so the event itself says nothing),
/// wakes at `wakeAtNs`, and calls `timePassed` in each turn with the stage that the service is in. What follows
/// from a change of stage is decided here.
final class ServiceDuties {
    enum Stage: Equatable {
        /// No generation has been ready yet.
        case starting
        case serving(generation: UInt32)
        case reloading
        case stopping
    }

    private let processID: Int32
    private let notifier: ServiceNotifier?
    private var rhythm: WatchdogRhythm
    private let pidFile: PIDFile?
    private let reaper: OrphanReaper?
    private let watch: ConfigurationWatch?
    private var stage: Stage

    /// - Parameters:
    ///   - stage: `reloading` in an image that has taken over from another one, which has told of it.
    ///   - environment: Values of `ServiceNotifier.variables`.
    /// - Throws: `StartFailure` of kind run time when the file cannot be watched, or SIGCHLD not be received.
    init(
        _ policy: ServicePolicy, stage: Stage, processID: Int32, environment: [String: String], nowNs: UInt64
    ) throws(StartFailure) {
        self.processID = processID
        self.stage = stage
        notifier = ServiceNotifier(environment: environment, processID: processID)
        rhythm = WatchdogRhythm(periodNs: notifier?.watchdogNs, nowNs: nowNs)
        pidFile = policy.pidFile.map(PIDFile.init(path:))
        do throws(Errno) {
            reaper = OrphanReaper.isNeeded ? try OrphanReaper() : nil
        } catch {
            throw .runTime("cannot receive SIGCHLD: \(error); raise the limit of open files (ulimit -n)")
        }
        watch = try Self.watch(policy.watched, nowNs: nowNs)
    }

    private static func watch(_ files: [WatchedFile], nowNs: UInt64) throws(StartFailure) -> ConfigurationWatch? {
        guard !files.isEmpty else { return nil }
        do throws(Errno) {
            return try ConfigurationWatch(files, nowNs: nowNs)
        } catch {
            let folders = Set(files.map(\.folder)).sorted().joined(separator: ", ")
            throw .runTime("cannot watch \(folders): \(error); leave --watch-config out")
        }
    }

    /// For epoll; open until the end.
    var descriptors: [Int32] { [reaper?.descriptor, watch?.descriptor].compactMap(\.self) }

    /// When to call `timePassed` although nothing has happened.
    var wakeAtNs: UInt64? { [rhythm.wakeAtNs, watch?.wakeAtNs].compactMap(\.self).min() }

    /// - Parameter isOwn: Whether the master itself waits for this child.
    /// - Returns: Whether the configuration file has changed, or one that it names, so that a reload is due.
    func timePassed(_ stage: Stage, nowNs: UInt64, _ logger: Logger, isOwn: (_ pid: Int32) -> Bool) -> Bool {
        if stage != self.stage { move(to: stage, nowNs: nowNs, logger) }
        if rhythm.isDue(nowNs: nowNs) { notifier?.watchdog() }
        if let count = reaper?.reap(isOwn: isOwn), count > 0 {
            logger.debug("reaped orphans", metadata: ["count": "\(count)"])
        }
        return watch?.changed(nowNs: nowNs) ?? false
    }

    /// A reload has read these files: what they say is no change any more.
    func configurationRead(_ files: [WatchedFile], nowNs: UInt64) {
        if !files.isEmpty { watch?.follow(files, nowNs: nowNs) }
    }

    /// At an orderly end.
    func ended() {
        pidFile?.remove(processID: processID)
    }

    private func move(to stage: Stage, nowNs: UInt64, _ logger: Logger) {
        let isFirst = self.stage == .starting
        self.stage = stage
        switch stage {
        case .starting: break
        case .serving(let generation):
            writePIDFile(isFirst: isFirst, logger)
            notifier?.ready(processID: processID, status: "generation \(generation) serves")
        case .reloading: notifier?.reloading(nowNs: nowNs)
        case .stopping: notifier?.stopping()
        }
    }

    /// Later on only when there is none: another balancer may have begun to use it.
    private func writePIDFile(isFirst: Bool, _ logger: Logger) {
        guard let pidFile, isFirst || !pidFile.exists else { return }
        do throws(Errno) {
            try pidFile.write(processID: processID)
        } catch {
            logger.error("cannot write the pid file", metadata: ["path": "\(pidFile.path)", "reason": "\(error)"])
        }
    }
}
