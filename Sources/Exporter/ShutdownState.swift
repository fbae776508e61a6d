/// When the exporter's work is over: the master said so, or nobody is left who could give it work.
///
/// The master's death alone is no reason: workers drain then, and their last trees are still to come.
struct ShutdownState {
    private(set) var isMasterThere = true
    private(set) var areWritersThere = true
    private var isAsked = false

    var mustDrain: Bool { isAsked || (!isMasterThere && !areWritersThere) }

    mutating func drainAsked() { isAsked = true }
    mutating func masterGone() { isMasterThere = false }
    mutating func writersGone() { areWritersThere = false }
}
