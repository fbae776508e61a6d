import CShims

/// The memory of a worker's HTTP/2 sessions, and which of them are awake.
///
/// A session to which nothing happens for a while is packed (`session_memory.h`) and costs a tenth of what it does
/// awake. It wakes when somebody reaches for libnghttp2's session, which nobody can do but by `HTTP2Session.raw`. Who
/// comes back is left awake for longer the next time, so that a client that asks every few seconds does not pay for both
/// each time.
///
///     awake ─ 1, 2, 4 … 16 whole periods without anything ─► packed
///       ▲                                                      │
///       └─────────────────────── raw ──────────────────────────┘
///
/// Unsafe inside: knows the sessions without owning them; each takes itself out before it is gone.
@safe
final class HTTP2Memory {
    /// How often those that are awake are looked at.
    static let periodNs: UInt64 = 1_000_000_000
    static let quietPeriodsMax: UInt8 = 16

    private let pool: OpaquePointer?
    private var awake: ContiguousArray<Unmanaged<HTTP2Session>> = unsafe []
    /// When to call `settle`.
    private(set) var nextNs = UInt64.max

    init() {
        unsafe pool = lb_session_pool_new()
    }

    deinit {
        if let pool = unsafe pool { unsafe lb_session_pool_free(pool) }
    }

    /// Sessions that are awake.
    var awakeCount: Int { unsafe awake.count }

    /// What libnghttp2 makes a session in; nil where that is malloc's business.
    func take() -> OpaquePointer? {
        guard let pool = unsafe pool else { return nil }
        return unsafe lb_session_memory_take(pool)
    }

    /// A session is awake from now on.
    func wakes(_ session: HTTP2Session, nowNs: UInt64) {
        session.awakePlace = unsafe awake.count
        unsafe awake.append(.passUnretained(session))
        if nextNs == .max { nextNs = nowNs &+ Self.periodNs }
    }

    /// It is packed, or gone.
    func leaves(_ session: HTTP2Session) {
        let last = unsafe awake.removeLast().takeUnretainedValue()
        guard last !== session else { return }
        unsafe awake[session.awakePlace] = .passUnretained(last)
        last.awakePlace = session.awakePlace
    }

    /// Packs those to which nothing has happened since the last time.
    func settle(nowNs: UInt64) {
        guard nowNs >= nextNs else { return }
        var index = 0
        while unsafe index < awake.count {
            let session = unsafe awake[index].takeUnretainedValue()
            if !session.rests() { index += 1 }
        }
        nextNs = unsafe awake.isEmpty ? .max : nowNs &+ Self.periodNs
    }
}

extension HTTP2Session {
    /// Packs what libnghttp2 has, if nothing has happened for long enough and nothing is about to.
    /// - Returns: False when it stays as it is.
    func rests() -> Bool {
        quietPeriods = wasActive || isMarkedDirty ? 0 : min(HTTP2Memory.quietPeriodsMax, quietPeriods + 1)
        wasActive = false
        guard let memory = unsafe memory, quietPeriods >= quietPeriodsWanted else { return false }
        let sentLong = longestFrameBytes > lb_session_memory_short_frame_bytes()
        guard unsafe lb_session_memory_pack(memory, sentLong ? 1 : 0) != 0 else { return false }
        isPacked = true
        releaseMemory()
        context.memory.leaves(self)
        return true
    }

    /// Gives back what is made again when it is needed.
    private func releaseMemory() {
        if !isInBlock {
            keptRequestBlock = nil
            keptResponseBlock = nil
        }
        streams.releaseMemory()
        touched.releaseMemory()
        sending.releaseMemory()
    }

    @inline(never)
    func newRequestBlock() -> RequestBlock {
        let block = RequestBlock(context.buffers, bytesMax: context.limits.requestFieldBytesMax)
        keptRequestBlock = block
        return block
    }

    @inline(never)
    func newResponseBlock() -> ResponseBlock {
        let block = ResponseBlock(context.buffers, bytesMax: context.limits.responseFieldBytesMax)
        keptResponseBlock = block
        return block
    }

    @inline(never)
    func unpack() {
        guard let memory = unsafe memory else { return }
        unsafe lb_session_memory_wake(memory)
        isPacked = false
        wasActive = true
        quietPeriodsWanted = min(HTTP2Memory.quietPeriodsMax, 2 * quietPeriodsWanted)
        context.memory.wakes(self, nowNs: context.nowNs)
    }
}
