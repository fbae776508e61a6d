/// Who a request is in its trace.
struct TraceIdentity {
    var traceIDHigh: UInt64 = 0
    var traceIDLow: UInt64 = 0
    /// The caller's span, 0 for none.
    var parentSpanID: UInt64 = 0
    var rootSpanID: UInt64 = 0
    var flags: UInt8 = 0
    /// Whether the caller's `tracestate` goes on with the request.
    var keepsTraceState = false

    /// Whether the tree is written.
    var isSampled: Bool { flags & TraceContext.sampledFlag != 0 }

    /// Goes on in the caller's trace, or starts one where there is none that can be read (W3C Trace
    /// Context §4.3).
    init(context: TraceContext?, _ random: inout IDGenerator) {
        rootSpanID = random.nextNonZero()
        if let context {
            traceIDHigh = context.traceIDHigh
            traceIDLow = context.traceIDLow
            parentSpanID = context.parentSpanID
            flags = context.flags
            keepsTraceState = true
        } else {
            traceIDHigh = random.next()
            traceIDLow = random.nextNonZero()
            flags = TraceContext.sampledFlag | TraceContext.randomFlag
        }
    }

    init() {}
}
