import Glibc
import ShmRing

extension Heritage {
    /// Opens what a configuration names: listeners, access log, shared memory.
    /// - Parameters:
    ///   - open: Listeners that are open already; those that the configuration wants are shared.
    /// - Throws: `StartFailure` of kind run time; what was opened before is closed again.
    convenience init(
        _ configuration: Configuration, generation: UInt32, sharing open: [ListenerSet] = []
    ) throws(StartFailure) {
        let accessLog = try Self.accessLog(configuration)
        let board = try Self.board(configuration)
        let tracing = try Tracing(configuration, generation: generation)
        // Last: a listener that exists must have somebody who accepts from it.
        let listeners = try Self.listeners(configuration, sharing: open)
        self.init(
            configuration, generation: generation, listeners: listeners, accessLog: accessLog, board: board,
            tracing: tracing)
    }

    static func accessLog(_ configuration: Configuration) throws(StartFailure) -> AccessLogFile? {
        guard let target = configuration.accessLog else { return nil }
        return try AccessLogFile(target)
    }

    private static func board(_ configuration: Configuration) throws(StartFailure) -> StatusBoard {
        do throws(Errno) {
            return try StatusBoard(slotCount: configuration.workerCount)
        } catch {
            throw .runTime("cannot make the memory for the workers' status: \(error); use fewer --workers")
        }
    }

    private static func listeners(
        _ configuration: Configuration, sharing open: [ListenerSet]
    ) throws(StartFailure) -> [ListenerSet] {
        var listeners: [ListenerSet] = []
        for address in configuration.listenAddresses {
            // Two places with port 0 look alike; they are told apart by their order.
            let free = open.filter { set in !listeners.contains { $0 === set } }
            listeners.append(try listener(address, count: configuration.workerCount, sharing: free))
        }
        return listeners
    }

    private static func listener(
        _ address: ListenAddress, count: Int, sharing open: [ListenerSet]
    ) throws(StartFailure) -> ListenerSet {
        guard let shared = open.first(where: { $0.wanted == address }) else {
            return try ListenerSet(address, count: count)
        }
        try shared.grow(to: count)
        shared.reopen()
        return shared
    }
}

extension Heritage.Tracing {
    /// - Returns: Nil when nothing is traced.
    fileprivate init?(_ configuration: Configuration, generation: UInt32) throws(StartFailure) {
        guard let exporter = configuration.exporter else { return nil }
        do throws(SpanSegment.CreationError) {
            segment = try SpanSegment(
                ringCount: configuration.workerCount, ringBytesMin: configuration.spanBufferBytes,
                generation: generation, masterPID: HostFacts.processID)
        } catch {
            throw .runTime("cannot make the memory for spans: \(error); lower --span-buffer or --workers")
        }
        do throws(Errno) {
            writersAlive = try WritersAlivePipe()
        } catch {
            throw .runTime("cannot make a pipe: \(error); raise the limit of open files (ulimit -n)")
        }
        self.exporter = exporter
    }
}
