import Logging
import ShmRing

/// The exporter's loop when spans go to standard output: every tree is printed as soon as it is read, and
/// its ring space given back when it is written. A reader of the output that is slow holds up this process
/// only; one that is gone costs the traces, which is logged once.
struct ConsoleExporter: ~Copyable {
    private static let treesPerTurn = 64

    private let flushTimeoutNs: UInt64
    private var watch: ShutdownWatch
    private var consumer: SegmentConsumer
    private let segment: SpanSegment
    private var walk: TreeWalk
    private let renderer: TraceRenderer
    private var rhythm: PollRhythm
    private var losses: LossWatch
    private let logger: Logger
    private var isOutputBroken = false
    private var malformedCount = 0
    private var malformedLimit = LogLimit()
    private var deadlineNs: UInt64?

    init(
        _ configuration: ExporterConfiguration, isColoured: Bool, segment: SpanSegment,
        watch: consuming ShutdownWatch, logger: Logger
    ) {
        flushTimeoutNs = configuration.flushTimeoutNs
        self.watch = watch
        self.segment = segment
        consumer = segment.consumer()
        walk = TreeWalk(naming: configuration.naming)
        renderer = TraceRenderer(isColoured: isColoured)
        rhythm = PollRhythm(nowNs: Clock.monotonicNs())
        losses = LossWatch(baseline: segment.counters)
        self.logger = logger
    }

    mutating func run() {
        watch.sayReady()
        while true {
            let nowNs = Clock.monotonicNs()
            consumer.beat(nowNs: nowNs)
            watch.look()
            if watch.mustDrain, deadlineNs == nil { deadlineNs = nowNs + flushTimeoutNs }
            let hasPrinted = printTrees(nowNs: nowNs)
            if hasPrinted { rhythm.treesRead(nowNs: nowNs) }
            reportLosses(nowNs: nowNs)
            if let deadlineNs, consumer.isEmpty || nowNs >= deadlineNs { return }
            if !hasPrinted { waitForTrees(nowNs: nowNs) }
        }
    }

    /// A few trees of every ring.
    private mutating func printTrees(nowNs: UInt64) -> Bool {
        var hasPrinted = false
        for ring in 0..<consumer.ringCount {
            for _ in 0..<Self.treesPerTurn {
                guard let (tree, end) = Self.readNext(ring, &consumer, &walk) else { break }
                if let tree { write(renderer.text(of: tree)) } else { noteMalformed(nowNs: nowNs) }
                consumer.release(through: end)
                hasPrinted = true
            }
        }
        return hasPrinted
    }

    private static func readNext(
        _ ring: Int, _ consumer: inout SegmentConsumer, _ walk: inout TreeWalk
    ) -> (result: TraceTree?, end: SegmentConsumer.Position)? {
        consumer.next(slot: ring) { TraceTree(record: $0, &walk) }
    }

    private mutating func write(_ text: String) {
        guard !isOutputBroken else { return }
        do {
            try StandardOutput.write(Array(text.utf8).span)
        } catch {
            isOutputBroken = true
            logger.warning("standard output is gone; traces are dropped", metadata: ["reason": "\(error)"])
        }
    }

    private mutating func noteMalformed(nowNs: UInt64) {
        malformedCount += 1
        guard malformedLimit.admit(nowNs: nowNs) != nil else { return }
        logger.warning(
            "the span buffer held records that make no sense; they were left out",
            metadata: ["malformed_total": "\(malformedCount)"])
    }

    private mutating func reportLosses(nowNs: UInt64) {
        let counters = segment.counters
        guard let dropped = losses.newlyDropped(counters, nowNs: nowNs) else { return }
        logger.warning(
            "workers dropped traces, as the span buffer was full or a trace too large",
            metadata: [
                "dropped": "\(dropped)", "ring_full_total": "\(counters.treesDroppedRingFull)",
                "too_large_total": "\(counters.treesDroppedTooLarge)",
            ])
    }

    private func waitForTrees(nowNs: UInt64) {
        guard deadlineNs == nil, rhythm.maySleep(isBatchOpen: false, nowNs: nowNs) else {
            return Readiness.wait(descriptors: watch.descriptors, timeoutMs: Int32(PollRhythm.stepNs / 1_000_000))
        }
        guard consumer.fallAsleep() else { return }
        Readiness.wait(
            descriptors: watch.descriptors + [consumer.wakeDescriptor],
            timeoutMs: Int32(PollRhythm.backstopNs / 1_000_000))
        consumer.wakeUp()
    }
}
