import ShmRing

/// Listens to the two descriptors that tell when the exporter's work is over, and feeds `ShutdownState`.
struct ShutdownWatch: ~Copyable {
    private let control: ControlChannel
    private let writers: WritersPipe
    private var state = ShutdownState()

    init(control: Int32, writersAlive: Int32) {
        self.control = ControlChannel(owning: control)
        writers = WritersPipe(owning: writersAlive)
    }

    var mustDrain: Bool { state.mustDrain }

    /// What to wait on. A descriptor that has reached its end is always readable and therefore left out.
    var descriptors: [Int32] {
        (state.isMasterThere ? [control.descriptor] : []) + (state.areWritersThere ? [writers.descriptor] : [])
    }

    func sayReady() {
        control.send(.ready)
    }

    /// Takes in what has happened since, without waiting.
    mutating func look() {
        if state.isMasterThere { lookAtControl() }
        if state.areWritersThere, !writers.hasWriters { state.writersGone() }
    }

    private mutating func lookAtControl() {
        while true {
            switch control.receive() {
            case .message(.drain), .message(.drainSweeping): state.drainAsked()
            case .message: continue
            case .nothing: return
            case .peerGone: return state.masterGone()
            }
        }
    }
}
