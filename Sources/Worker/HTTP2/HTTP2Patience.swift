/// What a peer may ask of a connection without making it useful. Two accounts, which fill up with time and with useful
/// work; who overdraws one is told ENHANCE_YOUR_CALM.
///
/// - Bytes: all that come cost, and the frames that carry requests and bodies give theirs back. What is left are frames
///   that carry nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown types, empty DATA, frames for streams that
///   are closed. Those that are answered cost more than their bytes. Credit for DATA that went out pays for the
///   WINDOW_UPDATEs that it brings back.
/// - Streams: those that the peer spoils, by a reset or by what has to be reset, against those that end well.
struct HTTP2Patience {
    /// Why a connection is ended.
    enum Cause: Equatable {
        case emptyFrames, spoiledStreams, fieldBytes, continuations, unreadAnswers, memory, unfinishedBlock

        /// For the log.
        var text: StaticString {
            switch self {
            case .emptyFrames: "too many frames that carry nothing"
            case .spoiledStreams: "too many streams reset, refused or malformed"
            case .fieldBytes: "a header block that grows too large"
            case .continuations: "a header block in too many frames"
            case .unreadAnswers: "too many answers that are not read"
            case .memory: "too much memory held while the worker is short of it"
            case .unfinishedBlock: "a header block that does not end"
            }
        }
    }

    static let bytesMax = 512 * 1024
    static let bytesPerSecond = 64 * 1024
    static let streamsMax = 1000
    static let streamsPerSecond = 33
    /// What a frame costs beyond its bytes when it wants an answer, or changes all streams.
    static let pingBytes = 64
    static let settingsBytes = 256
    static let emptyDataBytes = 256
    /// A header block gives back this much at most.
    static let blockBytesMax = 65536
    /// DATA for streams that were reset here may still come: all that a connection's window lets in.
    private static let lateBytesMax = 16 * 1024 * 1024
    /// What a frame of DATA may bring back: a WINDOW_UPDATE for its stream, and one for the connection.
    private static let creditFrameBytes = 26
    private static let frameHeadBytes = 9
    private static let stepNs = UInt64(1_000_000_000 / streamsPerSecond)

    private var bytes = Self.bytesMax
    private var lateBytes = 0
    private var streams = Self.streamsMax
    /// DATA that the peer has taken lately, and its own that was: half of it is forgotten with every second that passes.
    private var movedBytes = 0
    /// Steps since some of it was forgotten last.
    private var fadeSteps = 0
    private var refilledNs: UInt64 = 0
    /// The first cause, once there is one.
    private(set) var exhausted: Cause?

    /// Bytes came. Says so before they are read.
    mutating func received(_ count: Int, nowNs: UInt64) {
        if nowNs > refilledNs { refill(nowNs) }
        bytes -= count
    }

    /// Time fills the accounts, in steps that are long enough for a whole stream.
    private mutating func refill(_ nowNs: UInt64) {
        guard refilledNs > 0 else { return refilledNs = nowNs }
        let steps = min(Int((nowNs - refilledNs) / Self.stepNs), 30 * Self.streamsPerSecond)
        guard steps > 0 else { return }
        refilledNs = nowNs - (nowNs - refilledNs) % Self.stepNs
        bytes = min(Self.bytesMax, bytes + steps * (Self.bytesPerSecond / Self.streamsPerSecond))
        streams = min(Self.streamsMax, streams + steps)
        fadeSteps += steps
        guard fadeSteps >= Self.streamsPerSecond else { return }
        movedBytes >>= min(fadeSteps / Self.streamsPerSecond, Int.bitWidth - 1)
        fadeSteps %= Self.streamsPerSecond
    }

    /// Whether what is held for the peer is more than moves in a second or two.
    mutating func isHoarding(_ heldBytes: Int, nowNs: UInt64) -> Bool {
        if nowNs > refilledNs { refill(nowNs) }
        return heldBytes > movedBytes
    }

    /// Nothing has moved for a long time.
    var isStill: Bool { movedBytes == 0 }

    /// DATA with a payload came, or a part of it.
    mutating func dataArrived(_ count: Int) { bytes += count }
    /// Its frame is whole.
    mutating func dataFrameEnded() { bytes += Self.frameHeadBytes }
    /// A header block became a request, a response or trailers.
    mutating func blockArrived(frameBytes: Int) { bytes += min(frameBytes + Self.frameHeadBytes, Self.blockBytesMax) }
    /// DATA goes out.
    mutating func dataSent(_ count: Int) {
        guard count > 0 else { return }
        bytes += max(count >> 3, Self.creditFrameBytes)
        movedBytes += count
    }
    /// DATA of the peer was handed on.
    mutating func moved(_ count: Int) { movedBytes += count }
    /// A frame costs more than its bytes.
    mutating func charge(_ count: Int) { bytes -= count }
    /// The peer did not know yet that the stream would be reset.
    mutating func expectLate(_ count: Int) { lateBytes = min(Self.lateBytesMax, lateBytes + count) }
    mutating func streamSpoiled() { streams -= 1 }
    mutating func streamEnded() { if streams < Self.streamsMax { streams += 1 } }

    /// Judges the account of streams alone, in the middle of what came.
    mutating func streamsLast() -> Bool {
        if streams < 0 { exhaust(.spoiledStreams) }
        return exhausted == nil
    }

    mutating func exhaust(_ cause: Cause) { if exhausted == nil { exhausted = cause } }

    /// Judges what came since the last time.
    /// - Returns: False when the connection is to be ended.
    mutating func lasts() -> Bool {
        if bytes > Self.bytesMax { bytes = Self.bytesMax }
        if bytes < 0, lateBytes > 0 {
            let used = min(lateBytes, -bytes)
            lateBytes -= used
            bytes += used
        }
        if bytes < 0 { exhaust(.emptyFrames) }
        if streams < 0 { exhaust(.spoiledStreams) }
        return exhausted == nil
    }
}
