import Glibc
import ShmRing

extension Handover {
    /// The state that a previous image left for this one, if there is one; it is taken from the environment, so that
    /// no child sees it.
    static func waiting() throws(StartFailure) -> Handover? {
        guard let text = HostFacts.environment([variable])[variable] else { return nil }
        ProgramStart.setEnvironment(variable, nil)
        guard let raw = Int32(text), raw > 2, fcntl(raw, F_GETFD) >= 0 else {
            throw .runTime("\(variable) does not name an open descriptor; it is not meant to be set by hand")
        }
        let file = MemoryFile(adopting: FileDescriptor(owning: raw))
        let bytes: [UInt8]
        do throws(Errno) {
            bytes = try file.contents()
        } catch {
            throw .runTime("cannot read the state of the previous program: \(error)")
        }
        return try Handover(decoding: bytes)
    }

    /// Takes over every generation.
    /// - Parameters:
    ///   - configuration: Reads a configuration from the text of its file, or from the file where that is nil.
    /// - Throws: When the generation that serves cannot be taken over. One that drains and cannot goes on by itself:
    ///   its workers and its exporter end in order when they see their channels close.
    func fleets(
        _ configuration: (String?) throws(StartFailure) -> Configuration, complain: (String) -> Void
    ) throws(StartFailure) -> [Fleet] {
        for descriptor in descriptors { try? ProgramStart.keep(descriptor, false) }
        let sets = listeners.map { listeners in
            ListenerSet(
                wanted: ListenAddress(ip: listeners.ip, port: listeners.port), adopting: listeners.descriptors,
                isInherited: listeners.isInherited ?? false)
        }
        var fleets: [Fleet] = []
        for generation in generations {
            do throws(StartFailure) {
                fleets.append(try generation.adopted(sets, try configuration(generation.fileText), complain))
            } catch {
                if generation.number == current { throw error }
                generation.abandon()
                complain("generation \(generation.number) goes on alone: \(error.message)")
            }
        }
        return fleets
    }
}

extension Handover.Generation {
    fileprivate func adopted(
        _ sets: [ListenerSet], _ configuration: Configuration, _ complain: (String) -> Void
    ) throws(StartFailure) -> Fleet {
        guard configuration.workerCount == incarnations.count else {
            throw .runTime(
                "its configuration now says \(configuration.workerCount) workers, it has \(incarnations.count)")
        }
        let accessLog = try Heritage.accessLog(configuration)
        let board = try adoptedBoard()
        let heritage = Heritage(
            configuration, generation: number, listeners: listeners.map { sets[$0] }, accessLog: accessLog,
            board: board, tracing: tracing(configuration, complain))
        let children = children.map { child in
            ChildProcess(
                slot: child.worker.map(ChildSlot.worker) ?? .exporter, pid: child.pid,
                control: ControlChannel(owning: child.control), handle: FileDescriptor(owning: child.handle))
        }
        let ready = Set(zip(self.children, children).filter { $0.0.isReady }.map { $0.1.slot })
        return Fleet(adopting: heritage, children: children, ready: ready, incarnations: incarnations)
    }

    private func adoptedBoard() throws(StartFailure) -> StatusBoard {
        do throws(Errno) {
            return try StatusBoard(adopting: FileDescriptor(owning: board), slotCount: incarnations.count)
        } catch {
            throw .runTime("the memory for the workers' status cannot be taken over: \(error)")
        }
    }

    /// - Returns: Nil when nothing is traced, or when the spans are in a form that this program does not know: then the
    ///   exporter that runs delivers them, but could not be replaced.
    private func tracing(_ configuration: Configuration, _ complain: (String) -> Void) -> Heritage.Tracing? {
        guard let segment, let exporter = configuration.exporter else { return nil }
        let pipe = WritersAlivePipe(
            adoptingRead: FileDescriptor(owning: segment.writersAliveRead),
            write: FileDescriptor(owning: segment.writersAliveWrite))
        do throws(SpanSegment.AdoptionError) {
            let adopted = try SpanSegment(
                adopting: FileDescriptor(owning: segment.memory), wake: FileDescriptor(owning: segment.wake))
            return Heritage.Tracing(exporter: exporter, segment: adopted, writersAlive: pipe)
        } catch {
            complain("should the exporter of generation \(number) die, its spans are lost: \(error)")
            return nil
        }
    }

    /// Closes the channels: the children see that nobody looks after them any more, and finish.
    fileprivate func abandon() {
        for child in children {
            close(child.control)
            close(child.handle)
        }
    }
}
