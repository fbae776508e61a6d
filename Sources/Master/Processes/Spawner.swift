import CShims
import Exporter
import Glibc
import ShmRing
import Worker

/// Forks children: the only place that does.
///
///     signals are blocked → fork ─┬─► master: closes the child's end, watches the child
///                                 └─► child: names itself, drops what is not its own, ignores the master's
///                                            signals, unblocks, runs, _exit — never returns from here
///
/// Fork without exec is sound because the master has one thread for its whole life: no lock can be held by
/// a thread that the child does not have.
struct Spawner {
    let heritage: Heritage

    /// Starts a process for a slot.
    /// - Parameter incarnation: How many processes have filled the slot before.
    /// - Throws: What the kernel refused.
    func spawn(_ slot: ChildSlot, incarnation: UInt32) throws(Errno) -> ChildProcess {
        let ends = try ControlChannel.makePair()
        let masterEnd = ControlChannel(owning: ends.master)
        let childEnd = FileDescriptor(owning: ends.child)
        let pid = lb_fork()
        if pid == 0 { becomeChild(slot, incarnation, control: childEnd.rawValue) }
        guard pid > 0 else { throw Errno.last }
        return try ChildProcess(slot: slot, pid: pid, control: masterEnd)
    }

    private func becomeChild(_ slot: ChildSlot, _ incarnation: UInt32, control: Int32) -> Never {
        Self.closeAll(except: heritage.descriptors(for: slot, control: control))
        SignalSource.leaveToMaster()
        let status = hasTakenCredentials(slot) ? run(slot, incarnation, control: control) : 1
        // Not exit: what the master registered to happen at its own end must not happen here.
        _exit(status)
    }

    /// From here on the child is who `--user` says.
    private func hasTakenCredentials(_ slot: ChildSlot) -> Bool {
        guard let credentials = heritage.credentials else { return true }
        do throws(Errno) {
            try credentials.take()
            return true
        } catch {
            heritage.log.logger(role: slot.description).error(
                "cannot become another user", metadata: ["user": "\(credentials.name)", "reason": "\(error)"])
            return false
        }
    }

    private func run(_ slot: ChildSlot, _ incarnation: UInt32, control: Int32) -> Int32 {
        switch slot {
        case .worker(let index): runWorker(index, incarnation, control: control)
        case .exporter: runExporter(control: control)
        }
    }

    private func runWorker(_ index: Int, _ incarnation: UInt32, control: Int32) -> Int32 {
        let generation = heritage.generation
        ProcessTitle.set("worker \(index) (generation \(generation))", short: "lb worker \(index)")
        let logger = heritage.log.logger(role: ChildSlot.worker(index).description)
        if let cpu = heritage.pinnedCPUs?[index], lb_pin_to_cpu(cpu) != 0 {
            logger.warning("cannot pin to a CPU", metadata: ["cpu": "\(cpu)", "reason": "\(Errno.last)"])
        }
        var inheritance = WorkerInheritance(
            slot: index, listeners: heritage.listeningDescriptors(worker: index), control: control,
            generation: generation, segment: heritage.tracing?.segment, logger: logger)
        inheritance.incarnation = incarnation
        inheritance.inbox = heritage.inbox(of: index)
        if let periodNs = Watchdog(limitNs: heritage.lifecycle.workerStallNs).periodNs {
            inheritance.status = heritage.board.place(index)
            inheritance.heartbeatNs = periodNs
        }
        inheritance.drainBegan = {
            ProcessTitle.set("worker \(index) (generation \(generation), draining)", short: "lb worker \(index)")
        }
        return WorkerProcess.run(heritage.worker, inheritance)
    }

    private func runExporter(control: Int32) -> Int32 {
        ProcessTitle.set("exporter (generation \(heritage.generation))", short: "lb exporter")
        guard let tracing = heritage.tracing else { preconditionFailure("an exporter without tracing") }
        let inheritance = ExporterInheritance(
            segment: tracing.segment, control: control, writersAlive: tracing.writersAlive.readEnd,
            logger: heritage.log.logger(role: ChildSlot.exporter.description))
        return ExporterProcess.run(tracing.exporter, inheritance)
    }

    /// Closes every descriptor but 0, 1, 2 and `kept`.
    private static func closeAll(except kept: [Int32]) {
        var next = UInt32(STDERR_FILENO) + 1
        for descriptor in kept.map(UInt32.init).sorted() where descriptor >= next {
            if descriptor > next { _ = lb_close_range(next, descriptor - 1) }
            next = descriptor + 1
        }
        _ = lb_close_range(next, .max)
    }
}
