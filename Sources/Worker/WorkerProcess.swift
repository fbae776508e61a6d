import Logging
import ShmRing

/// The life of one worker process, from fork to exit.
public enum WorkerProcess {
    /// Serves until the master says drain or is gone.
    /// - Parameters:
    ///   - configuration: What to serve and how.
    ///   - inheritance: Descriptors and memory from the master.
    /// - Returns: The process's exit status: 0 after a drain, 1 when the worker could not start.
    public static func run(_ configuration: WorkerConfiguration, _ inheritance: consuming WorkerInheritance) -> Int32 {
        let control = ControlChannel(owning: inheritance.control)
        let logger = inheritance.logger
        do {
            let termination = try SignalDescriptor()
            let proxy = try Proxy(configuration, inheritance)
            try proxy.poller.addReadable(control.descriptor, token: EventToken(kind: .control, slot: 0))
            try proxy.poller.addReadable(termination.rawValue, token: EventToken(kind: .signal, slot: 0))
            proxy.updateAccepting()
            control.send(.ready)
            proxy.run(control: control, termination: termination)
            return 0
        } catch {
            logger.error("the worker cannot start", metadata: ["reason": "\(error)"])
            return 1
        }
    }
}
