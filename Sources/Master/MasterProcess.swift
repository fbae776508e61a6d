import Exporter
import Glibc
import Logging
import ShmRing

/// The program: from its arguments to its exit status.
///
///     arguments, file ─► CommandLineOptions ─► Configuration ─► Heritage ─► Supervisor
///     environment, machine, resolver ─────────────┘     sockets, files, shared memory ──┘ forks
///
/// Whatever can be wrong with what was asked for is found out before the first fork, and reported as one
/// line on standard error.
public enum MasterProcess {
    /// Runs the balancer, or prints what was asked for instead.
    /// - Parameter arguments: As the process got them, the program's name first.
    /// - Returns: 0 after an orderly end; 1 when the system refuses what was asked for, or a second signal cut
    ///   the end short; 2 when the command line, its file, or what `--check` was to check, cannot be used.
    public static func main(_ arguments: [String]) -> Int32 {
        do throws(CommandLineEnd) {
            let configuration = try Configuration.load(arguments: Array(arguments.dropFirst()))
            return configuration.isCheck ? check(configuration) : serve(configuration)
        } catch {
            switch error {
            case .text(let text): return show(text + "\n")
            case .failure(let failure): return report(failure)
            }
        }
    }

    private static func serve(_ configuration: Configuration) -> Int32 {
        do throws(StartFailure) {
            let descriptorsMax = HostFacts.raiseDescriptorLimit()
            let heritage = try Heritage(configuration)
            let logger = configuration.log.logger(role: "master")
            for warning in configuration.warnings + descriptorWarnings(configuration, descriptorsMax: descriptorsMax) {
                logger.warning("\(warning)")
            }
            return try supervise(heritage, logger)
        } catch {
            return report(error)
        }
    }

    private static func supervise(_ heritage: Heritage, _ logger: Logger) throws(StartFailure) -> Int32 {
        ProcessTitle.set("master", short: "load_balancer")
        do throws(Errno) {
            var supervisor = try Supervisor(heritage: heritage, signals: try SignalSource(), logger: logger)
            return supervisor.run()
        } catch {
            throw .runTime("cannot watch signals and children: \(error); raise the limit of open files (ulimit -n)")
        }
    }

    /// Does everything that a start does before it opens something for good; tells of every failure as one of
    /// the configuration.
    private static func check(_ configuration: Configuration) -> Int32 {
        do throws(StartFailure) {
            try ListenerSet.probe(configuration.listen)
            for warning in configuration.warnings { complain("warning: \(warning)") }
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
