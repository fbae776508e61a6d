import Exporter
import Glibc
import Logging
import ShmRing

/// The program: from its arguments to its exit status.
///
///     arguments, file ─► Launch ─► Configuration ─► Heritage ─► Fleet ─► Supervisor
///     environment, machine, resolver ──┘    sockets, files, memory ──┘         └► forks
///     state of the program that ran before ─► Handover ──────────────┘
///
/// Whatever can be wrong with what was asked for is found out before the first fork, and reported as one
/// line on standard error.
public enum MasterProcess {
    /// Runs the balancer, or prints what was asked for instead.
    /// - Parameter arguments: As the process got them, the program's name first.
    /// - Returns: 0 after an orderly end; 1 when the system refuses what was asked for, or a second signal cut
    ///   the end short; 2 when the command line, its file, or what `--check` was to check, cannot be used.
    public static func main(_ arguments: [String]) -> Int32 {
        do throws(StartFailure) {
            if let handover = try Handover.waiting() { return try goOn(handover, arguments) }
            try Preflight.checkVersion()
        } catch {
            return report(error)
        }
        let launch = Launch(arguments: arguments)
        do throws(CommandLineEnd) {
            let configuration = try launch.load()
            return configuration.isCheck ? check(configuration) : serve(configuration, launch)
        } catch {
            switch error {
            case .text(let text): return show(text + "\n")
            case .failure(let failure): return report(failure)
            }
        }
    }

    private static func serve(_ configuration: Configuration, _ launch: Launch) -> Int32 {
        do throws(StartFailure) {
            var supervisor = try opened(configuration, launch)
            return supervisor.run()
        } catch {
            return report(error)
        }
    }

    /// Opens the first generation. In a function of its own, so that nothing but the supervisor holds it.
    private static func opened(
        _ configuration: Configuration, _ launch: Launch
    ) throws(StartFailure) -> Supervisor {
        let descriptorsMax = HostFacts.raiseDescriptorLimit()
        let heritage = try Heritage(configuration, generation: 1, sharing: try inherited(configuration))
        let logger = configuration.log.logger(role: "master")
        for warning in configuration.warnings + descriptorWarnings(configuration, descriptorsMax: descriptorsMax) {
            logger.warning("\(warning)")
        }
        ProcessTitle.set("master", short: "load_balancer")
        return try supervisor(launch, [Fleet(heritage)], current: 1, newest: 1, stage: .starting, logger)
    }

    /// What a service manager listens on already, in place of what the configuration names.
    private static func inherited(_ configuration: Configuration) throws(StartFailure) -> [ListenerSet] {
        let environment = HostFacts.environment(InheritedSockets.variables)
        let sockets = try InheritedSockets(environment: environment, processID: HostFacts.processID)
        InheritedSockets.clearEnvironment()
        let places = try sockets?.places(plain: configuration.listen, tls: configuration.tlsListen) ?? []
        return places.map { ListenerSet(wanted: $0, adopting: $1, isInherited: true) }
    }

    /// This program has just taken another one's place: its generations go on, and a new one is started.
    /// - Throws: What keeps it from that. The children see that nobody looks after them any more, and finish.
    private static func goOn(_ handover: Handover, _ arguments: [String]) throws(StartFailure) -> Int32 {
        let draining = Set(handover.generations.filter(\.isDraining).map(\.number))
        var supervisor = try takenOver(handover, Launch(arguments: arguments, instanceBytes: handover.instanceBytes))
        return supervisor.goOn(draining)
    }

    private static func takenOver(_ handover: Handover, _ launch: Launch) throws(StartFailure) -> Supervisor {
        _ = HostFacts.raiseDescriptorLimit()
        ProcessTitle.set("master", short: "load_balancer")
        if let tickets = handover.tickets { TLSPlan.tickets.adopt(tickets) }
        let fleets = try handover.fleets(
            { (text) throws(StartFailure) in try launch.configuration(fileText: text) }, complain: complain)
        guard let serving = fleets.first(where: { $0.generation == handover.current }) else {
            throw .runTime("the generation that serves is missing in the state of the previous program")
        }
        let logger = serving.heritage.log.logger(role: "master")
        return try supervisor(
            launch, fleets, current: handover.current, newest: handover.newest, stage: .reloading, logger)
    }

    private static func supervisor(
        _ launch: Launch, _ fleets: [Fleet], current: UInt32, newest: UInt32, stage: ServiceDuties.Stage,
        _ logger: Logger
    ) throws(StartFailure) -> Supervisor {
        let policy = fleets.first { $0.generation == current }?.heritage.service ?? ServicePolicy()
        let duties = try ServiceDuties(
            policy, stage: stage, processID: HostFacts.processID,
            environment: HostFacts.environment(ServiceNotifier.variables), nowNs: Clock.monotonicNs())
        do throws(Errno) {
            return try Supervisor(
                launch, fleets: fleets, current: current, newest: newest, signals: try SignalSource(), duties: duties,
                logger: logger)
        } catch {
            throw .runTime("cannot watch signals and children: \(error); raise the limit of open files (ulimit -n)")
        }
    }

    /// Does everything that a start does before it opens something for good; tells of every failure as one of
    /// the configuration. A port in use is none: most often it is the running balancer's, which is to be reloaded.
    private static func check(_ configuration: Configuration) -> Int32 {
        do throws(StartFailure) {
            var busy: [String] = []
            for address in configuration.listenAddresses { busy += try ListenerSet.probe(address) }
            for warning in configuration.warnings + busy { complain("warning: \(warning)") }
            return show(PlanText.describe(configuration))
        } catch {
            return report(.usage(error.message))
        }
    }

    /// A full table of connections needs two descriptors for each: the client's and the backend's.
    private static func descriptorWarnings(_ configuration: Configuration, descriptorsMax: Int) -> [String] {
        let wanted = 2 * configuration.worker.limits.connectionsMax
        guard wanted > descriptorsMax else { return [] }
        return [
            "\(configuration.worker.limits.connectionsMax) connections need up to \(wanted) open files, the limit is "
                + "\(descriptorsMax); raise it (ulimit -n, LimitNOFILE) or lower --max-connections"
        ]
    }

    private static func report(_ failure: StartFailure) -> Int32 {
        complain(failure.message)
        return failure.kind.rawValue
    }

    private static func complain(_ message: String) {
        StandardStream.error.write("\(productName): \(PrintableText.escaped(message))\n")
    }

    private static func show(_ text: String) -> Int32 {
        StandardStream.output.write(text)
        return 0
    }
}
