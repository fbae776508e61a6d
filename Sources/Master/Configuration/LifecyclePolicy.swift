/// How long generations of workers may take for what they owe the master, and how many may stand side by side.
struct LifecyclePolicy: Equatable, Sendable {
    /// A new generation must be ready within it, or it is given up.
    var readyTimeoutNs: UInt64 = 10_000_000_000
    /// Generations that may still be draining when another reload is asked for.
    var drainingGenerationsMax = 4
    /// A worker that shows no sign of life for so long is replaced; 0: never.
    var workerStallNs: UInt64 = 10_000_000_000
}
