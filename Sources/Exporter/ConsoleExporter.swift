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
    private var postMortems: PostMortems
    private var walk: TreeWalk
    private let renderer: TraceRenderer
    private var rhythm: PollRhythm
    private var report: ExportReport
    private var isOutputBroken = false
    private var malformedCount: UInt64 = 0
    private var deadlineNs: UInt64?

    init(
        _ configuration: ExporterConfiguration, isColoured: Bool, segment: SpanSegment,
        watch: consuming ShutdownWatch, logger: Logger
    ) {
        flushTimeoutNs = configuration.flushTimeoutNs
        self.watch = watch
        self.segment = segment
        consumer = segment.consumer()
        postMortems = PostMortems(segment: segment, logger: logger)
        walk = TreeWalk(naming: configuration.naming)
        renderer = TraceRenderer(isColoured: isColoured)
        rhythm = PollRhythm(nowNs: Clock.monotonicNs())
        report = ExportReport(logger: logger, counters: segment.counters)
    }

    mutating func run() {
        watch.sayReady()
        while true {
            let nowNs = Clock.monotonicNs()
            consumer.beat(nowNs: nowNs)
            watch.look()
            if watch.mustDrain, deadlineNs == nil { deadlineNs = nowNs + flushTimeoutNs }
            postMortems.work()
            let hasPrinted = printTrees()
            if hasPrinted { rhythm.treesRead(nowNs: nowNs) }
            report.counted(
                segment.counters, malformed: malformedCount, corruptions: consumer.corruptions,
                unknown: walk.unknownCount, nowNs: nowNs)
            if let deadlineNs, consumer.isEmpty && postMortems.isDone || nowNs >= deadlineNs { return }
            if !hasPrinted { waitForTrees(nowNs: nowNs) }
        }
    }

    /// A few trees of every ring.
    private mutating func printTrees() -> Bool {
        var hasPrinted = false
        for ring in 0..<consumer.ringCount {
            for _ in 0..<Self.treesPerTurn {
                guard let (tree, end) = Self.readNext(ring, &consumer, &walk) else { break }
                if let tree { write(renderer.text(of: tree)) } else { malformedCount += 1 }
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
            report.outputBroken(error)
        }
    }

    private func waitForTrees(nowNs: UInt64) {
        let maySleep = rhythm.maySleep(isBatchOpen: false, nowNs: nowNs) && !postMortems.isBlocked
        guard deadlineNs == nil, maySleep else {
            return Readiness.wait(descriptors: watch.descriptors, timeoutMs: Int32(PollRhythm.stepNs / 1_000_000))
        }
        guard consumer.fallAsleep() else { return }
        Readiness.wait(
            descriptors: watch.descriptors + [consumer.wakeDescriptor],
            timeoutMs: Int32(PollRhythm.backstopNs / 1_000_000))
        consumer.wakeUp()
    }
}
