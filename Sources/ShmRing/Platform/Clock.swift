import CShims
import Glibc

/// Time in nanoseconds. State machines never call this: drivers read it and pass it in.
public enum Clock {
    /// Nanoseconds of CLOCK_MONOTONIC, the only clock that timeouts and durations use.
    @inlinable
    public static func monotonicNs() -> UInt64 { read(CLOCK_MONOTONIC) }

    /// Nanoseconds since the Unix epoch (CLOCK_REALTIME), read once per traced request.
    @inlinable
    public static func realtimeNs() -> UInt64 { read(CLOCK_REALTIME) }

    @inlinable
    static func read(_ clock: clockid_t) -> UInt64 {
        var result: UInt64 = 0
        guard unsafe lb_clock_ns(clock, &result) == 0 else {
            preconditionFailure("clock_gettime(\(clock)) failed: \(Errno.last)")
        }
        return result
    }
}
