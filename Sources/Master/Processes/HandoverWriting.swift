import Glibc
import ShmRing

extension Handover {
    /// What the fleets of this process amount to.
    init(fleets: [Fleet], current: UInt32, newest: UInt32, instanceBytes: [UInt8]) {
        var sets: [ListenerSet] = []
        for set in fleets.flatMap(\.heritage.listeners) where !sets.contains(where: { $0 === set }) { sets.append(set) }
        self.init(
            current: current, newest: newest, instanceBytes: instanceBytes,
            listeners: sets.map(Listeners.init),
            generations: fleets.map { Generation($0, sets) })
        tickets = TLSPlan.tickets.exported
    }

    /// Puts the state where the next image finds it, and lets it keep its descriptors.
    /// - Returns: The memory file, to be kept open until the image has changed.
    func offer() throws(StartFailure) -> MemoryFile {
        let bytes = try encoded()
        do throws(Errno) {
            let file = try MemoryFile(name: "load_balancer-handover")
            try file.write(bytes)
            for descriptor in descriptors + [file.descriptor] { try ProgramStart.keep(descriptor, true) }
            ProgramStart.setEnvironment(Self.variable, "\(file.descriptor)")
            return file
        } catch {
            throw .runTime("cannot hand the state of the master over: \(error)")
        }
    }

    /// The image did not change.
    func withdraw() {
        ProgramStart.setEnvironment(Self.variable, nil)
        for descriptor in descriptors { try? ProgramStart.keep(descriptor, false) }
    }
}

extension Handover.Listeners {
    fileprivate init(_ set: ListenerSet) {
        self.init(
            ip: set.wanted.ip, port: set.wanted.port, descriptors: set.descriptors, isInherited: set.isInherited)
    }
}

extension Handover.Generation {
    fileprivate init(_ fleet: Fleet, _ sets: [ListenerSet]) {
        let heritage = fleet.heritage
        self.init(
            number: fleet.generation, isDraining: !fleet.state.isServing, fileText: heritage.fileText,
            listeners: heritage.listeners.compactMap { set in sets.firstIndex { $0 === set } },
            board: heritage.board.memoryDescriptor, segment: heritage.tracing.map(Handover.Segment.init),
            incarnations: fleet.incarnations,
            children: fleet.children.values.map { child in
                Handover.Child(
                    worker: child.slot.workerIndex, pid: child.pid, control: child.control.descriptor,
                    handle: child.endDescriptor, isReady: fleet.state.isReady(child.slot))
            })
    }
}

extension Handover.Segment {
    fileprivate init(_ tracing: Heritage.Tracing) {
        self.init(
            memory: tracing.segment.memoryDescriptor, wake: tracing.segment.wakeDescriptor,
            writersAliveRead: tracing.writersAlive.readEnd, writersAliveWrite: tracing.writersAlive.writeEnd)
    }
}
