/// When the spans that wait become a post.
///
///     (empty) ──treeAdded──► (open, since when) ──action = .post──► posted ──► (empty)
///
/// A value without I/O: the driver passes the time in, in nanoseconds of the monotonic clock, and does what
/// `action` says. Whether a post may fly now is for `RetryPolicy` and `Outbox` to say; until it may, the
/// batch stays open and grows up to `bytesMax`.
struct BatchState {
    struct Limits {
        /// A batch goes out when this many spans wait …
        var spansMin = 100
        /// … or when the oldest waits this long …
        var delayNs: UInt64 = 5_000_000_000
        /// … but no sooner than this after the one before …
        var postIntervalNs: UInt64 = 50_000_000
        /// … unless this many bytes wait.
        var urgentBytes = 2 << 20
        /// Nothing is added to a batch of this size; it may be passed by the last tree.
        var bytesMax = 4 << 20
    }

    enum Action: Equatable {
        /// Nothing waits.
        case rest
        case post
        /// Nothing to do before this time, if no tree comes.
        case wait(untilNs: UInt64)
    }

    let limits: Limits
    private(set) var spans = 0
    private(set) var trees = 0
    private var bytes = 0
    private var openedNs: UInt64 = 0
    private var nextPostNs: UInt64 = 0

    init(_ limits: Limits) {
        self.limits = limits
    }

    var isOpen: Bool { spans > 0 }
    var isFull: Bool { bytes >= limits.bytesMax }

    /// - Parameters:
    ///   - spans: How many spans the tree brought.
    ///   - batchBytes: Size of the whole batch now.
    mutating func treeAdded(spans added: Int, batchBytes: Int, nowNs: UInt64) {
        guard added > 0 else { return }
        if spans == 0 { openedNs = nowNs }
        spans += added
        trees += 1
        bytes = batchBytes
    }

    /// What to do with the open batch.
    /// - Parameter isDraining: Nothing more will come worth waiting for.
    func action(nowNs: UInt64, isDraining: Bool) -> Action {
        guard isOpen else { return .rest }
        if isDraining || bytes >= limits.urgentBytes { return .post }
        let dueNs = spans >= limits.spansMin ? nextPostNs : max(openedNs + limits.delayNs, nextPostNs)
        return nowNs >= dueNs ? .post : .wait(untilNs: dueNs)
    }

    /// The batch was closed.
    mutating func posted(nowNs: UInt64) {
        nextPostNs = nowNs + limits.postIntervalNs
        spans = 0
        trees = 0
        bytes = 0
    }
}
