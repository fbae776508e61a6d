/// A span of another trace that a span refers to, as an OTLP link does.
public struct LinkTarget: Equatable, Sendable {
    /// W3C trace flags of traces that are begun here and written: sampled, random (W3C Trace Context §3.2.2.5).
    public static let ownTraceFlags: UInt8 = 3

    /// Halves of the trace id as in its hexadecimal text.
    public var traceIDHigh: UInt64
    public var traceIDLow: UInt64
    public var spanID: UInt64
    public var traceFlags: UInt8

    public init(
        traceIDHigh: UInt64, traceIDLow: UInt64, spanID: UInt64, traceFlags: UInt8 = LinkTarget.ownTraceFlags
    ) {
        self.traceIDHigh = traceIDHigh
        self.traceIDLow = traceIDLow
        self.spanID = spanID
        self.traceFlags = traceFlags
    }
}

extension TreeWriter {
    /// The link from an attempt's span to the connection that it used.
    public mutating func link(to target: LinkTarget, connection: borrowing ConnectionName) {
        beginLink(to: target)
        attribute(.connectionID, text: connection.bytes)
    }
}
