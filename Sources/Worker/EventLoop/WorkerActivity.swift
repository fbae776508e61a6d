/// What a worker's place on the status board says it serves, in words for the log.
public enum WorkerActivity {
    /// - Parameter code: As `StatusBoard.activity` has it; anything is possible.
    public static func text(_ code: UInt64) -> String {
        guard code != 0, let token = EventToken(bits: code) else { return "nothing yet" }
        return switch token.kind {
        case .listener: "listener \(token.slot)"
        case .control: "the master's messages"
        case .signal: "a signal"
        case .inbox, .successor: "connections that change hands"
        case .downstream: "client connection \(token.slot)"
        case .upstream: "backend connection \(token.slot)"
        }
    }
}
