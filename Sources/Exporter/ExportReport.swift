import Logging
import ShmRing

/// What the exporter tells the people who run it: totals, and a bounded number of lines about trouble.
struct ExportReport {
    private var logger: Logger
    private var deliveredSpans = 0
    private var refusedTrees = 0
    private var rejectedSpans: Int64 = 0
    private var losses: LossWatch
    private var failureLimit = LogLimit()
    private var refusalLimit = LogLimit()
    private var answerLimit = LogLimit()
    private var recordLimit = LogLimit()
    private var badRecordsSeen: UInt64 = 0
    private var lastCounters: SpanCounters

    /// - Parameter counters: What workers had counted when this process started.
    init(logger: Logger, counters: SpanCounters) {
        self.logger = logger
        losses = LossWatch(baseline: counters)
        lastCounters = counters
    }

    /// - Parameter failures: How many attempts failed before this one succeeded.
    mutating func delivered(spans: Int, after failures: Int, _ answer: CurlTransport.Answer, nowNs: UInt64) {
        deliveredSpans += spans
        if failures > 0 { logger.notice("the collector takes spans again", metadata: ["failures": "\(failures)"]) }
        switch answer.isCut ? .nonsense : PartialSuccess(body: answer.body) {
        case .complete: return
        case .partial(let rejected, let message):
            rejectedSpans = rejectedSpans &+ max(0, rejected)
            Self.warn(
                logger, &answerLimit, nowNs, "the collector took a batch in part",
                ["rejected_spans": "\(rejected)", "spans": "\(spans)", "reason": "\(message)"])
        case .nonsense:
            Self.warn(
                logger, &answerLimit, nowNs, "the collector took a batch but answered something that is not OTLP",
                ["status": "\(answer.status)", "bytes": "\(answer.body.count)"])
        }
    }

    mutating func refused(spans: Int, trees: Int, _ answer: CurlTransport.Answer, nowNs: UInt64) {
        refusedTrees += trees
        Self.warn(
            logger, &refusalLimit, nowNs, "the collector refused a batch for good; it is dropped",
            [
                "status": "\(answer.status)", "spans": "\(spans)", "traces_dropped_total": "\(refusedTrees)",
                "answer": "\(String(decoding: answer.body.prefix(256), as: UTF8.self))",
            ])
    }

    mutating func deliveryFailed(reason: String, pauseNs: UInt64, nowNs: UInt64) {
        Self.warn(
            logger, &failureLimit, nowNs, "spans cannot be delivered now; they wait and are sent again",
            ["reason": "\(reason)", "retry_in_ms": "\(pauseNs / 1_000_000)"])
    }

    /// Takes in the counters of rings and reader; says so when workers or the reader lost something.
    mutating func counted(
        _ counters: SpanCounters, malformed: UInt64, corruptions: UInt64, unknown: UInt64, nowNs: UInt64
    ) {
        lastCounters = counters
        if let dropped = losses.newlyDropped(counters, nowNs: nowNs) {
            logger.warning(
                "workers dropped traces, as the span buffer was full or a trace too large",
                metadata: [
                    "dropped": "\(dropped)", "ring_full_total": "\(counters.treesDroppedRingFull)",
                    "too_large_total": "\(counters.treesDroppedTooLarge)",
                ])
        }
        let bad = malformed &+ corruptions &+ unknown
        guard bad != badRecordsSeen else { return }
        badRecordsSeen = bad
        Self.warn(
            logger, &recordLimit, nowNs, "the span buffer held records that make no sense; they were left out",
            [
                "malformed_total": "\(malformed)", "corrupt_rings_total": "\(corruptions)",
                "unknown_numbers_total": "\(unknown)",
            ])
    }

    /// Nobody reads what the console is to show.
    func outputBroken(_ error: Errno) {
        logger.warning("standard output is gone; traces are dropped", metadata: ["reason": "\(error)"])
    }

    /// The last line: what became of everything.
    func finished(lostTrees: Int) {
        let metadata: Logger.Metadata = [
            "spans_delivered": "\(deliveredSpans)", "spans_rejected": "\(rejectedSpans)",
            "traces_refused": "\(refusedTrees)", "traces_lost": "\(lostTrees)",
            "values_cut": "\(lastCounters.valuesCut)",
            "traces_dropped_by_workers": "\(lastCounters.treesDroppedRingFull &+ lastCounters.treesDroppedTooLarge)",
        ]
        if lostTrees > 0 {
            logger.warning("traces could not be delivered in time and are lost", metadata: metadata)
        } else {
            logger.info("every trace was dealt with", metadata: metadata)
        }
    }

    private static func warn(
        _ logger: Logger, _ limit: inout LogLimit, _ nowNs: UInt64, _ message: Logger.Message,
        _ metadata: Logger.Metadata
    ) {
        guard let suppressed = limit.admit(nowNs: nowNs) else { return }
        let more: Logger.Metadata = suppressed > 0 ? ["lines_left_out": "\(suppressed)"] : [:]
        logger.warning(message, metadata: metadata.merging(more) { first, _ in first })
    }
}
