import Logging
import ShmRing

/// The exporter's loop when spans go to a collector.
///
///     rings ──► SpanBatcher ──► Outbox ──► CurlTransport ──► collector
///       ▲                         │  ▲            │
///       └── release ◄── DeliveryLedger ◄── settled┘ (or again, when RetryPolicy says)
///
/// This driver reads the clock, performs what the state machines say, and logs. Records stay in their rings
/// until their batch is settled, so a collector that is down costs `batchesMax` bodies of memory and then
/// ring space, never a worker's time.
struct CollectorExporter<Format: OTLPFormat & ~Copyable>: ~Copyable {
    /// Closed batches in memory at a time, in flight or waiting.
    private static var batchesMax: Int { 4 }

    private let configuration: ExporterConfiguration
    private let segment: SpanSegment
    private let transport: CurlTransport
    private var watch: ShutdownWatch
    private var batcher: SpanBatcher<Format>
    private var postMortems: PostMortems
    private var ledger = DeliveryLedger<SegmentConsumer.Position>()
    private var outbox = Outbox(capacity: Self.batchesMax)
    private var retry = RetryPolicy()
    private var rhythm: PollRhythm
    private var report: ExportReport
    private var random = SystemRandomNumberGenerator()
    /// When delivery must end, once draining began.
    private var deadlineNs: UInt64?

    init(
        _ configuration: ExporterConfiguration, url: String, headers: [(name: String, value: String)],
        segment: SpanSegment, watch: consuming ShutdownWatch, logger: Logger
    ) {
        self.configuration = configuration
        self.segment = segment
        self.watch = watch
        transport = CurlTransport(
            CurlTransport.Settings(
                url: url, userAgent: "load_balancer/\(configuration.resource.scopeVersion)",
                headerLines: ["Content-Type: \(Format.contentType)"] + headers.map { "\($0.name): \($0.value)" },
                timeoutNs: configuration.requestTimeoutNs, slotCount: Self.batchesMax,
                tls: configuration.collectorTLS))
        batcher = SpanBatcher(
            consumer: segment.consumer(), resource: configuration.resource, naming: configuration.naming,
            limits: BatchState.Limits(spansMin: configuration.batchSpansMin, delayNs: configuration.batchDelayNs))
        postMortems = PostMortems(segment: segment, logger: logger)
        rhythm = PollRhythm(nowNs: Clock.monotonicNs())
        var logger = logger
        logger[metadataKey: "collector"] = "\(url)"
        report = ExportReport(logger: logger, counters: segment.counters)
    }

    /// Works until there is nothing more to do, or no more time to do it.
    mutating func run() {
        watch.sayReady()
        while true {
            let nowNs = Clock.monotonicNs()
            turn(nowNs: nowNs)
            if let deadlineNs, isDone || nowNs >= deadlineNs { return finish() }
            waitForWork(nowNs: Clock.monotonicNs())
        }
    }

    private mutating func turn(nowNs: UInt64) {
        batcher.beat(nowNs: nowNs)
        watch.look()
        if watch.mustDrain, deadlineNs == nil {
            deadlineNs = nowNs + configuration.flushTimeoutNs
            retry.drainBegan()
        }
        settleEnded(nowNs: nowNs)
        postMortems.work()
        repeat {
            if batcher.fill(nowNs: nowNs) { rhythm.treesRead(nowNs: nowNs) }
        } while closeBatch(nowNs: nowNs)
        send(nowNs: nowNs)
        report.counted(
            segment.counters, malformed: batcher.malformedCount, corruptions: batcher.corruptionCount,
            unknown: batcher.unknownCount, nowNs: nowNs)
    }

    private var isDone: Bool {
        postMortems.isDone && batcher.areRingsEmpty && !batcher.state.isOpen && outbox.isEmpty
    }

    // MARK: Sending

    /// Moves the open batch to the outbox if it is time and there is room.
    /// - Returns: Whether it did, so that there may be more to read at once.
    private mutating func closeBatch(nowNs: UInt64) -> Bool {
        let isDue = batcher.state.action(nowNs: nowNs, isDraining: deadlineNs != nil) == .post && outbox.hasRoom
        guard isDue || batcher.holdsOnlyWaste else { return false }
        let closed = batcher.close(nowNs: nowNs)
        let id = ledger.batchClosed(closed.marks)
        if let body = closed.body {
            outbox.add(Outbox.Parcel(id: id, body: body, spans: closed.spans, trees: closed.trees))
        } else {
            batcher.release(ledger.batchSettled(id))
        }
        return true
    }

    private mutating func send(nowNs: UInt64) {
        while retry.mayPost(nowNs: nowNs, postsInFlight: outbox.inFlightCount), let next = outbox.nextPost(nowNs: nowNs)
        {
            transport.post(next.parcel.body, slot: next.slot)
        }
    }

    private mutating func settleEnded(nowNs: UInt64) {
        for (slot, outcome) in transport.advance() {
            switch outcome {
            case .failed(let reason): deliveryFailed(slot, reason: reason, retryAfterNs: 0, nowNs: nowNs)
            case .answered(let answer): answered(slot, answer, nowNs: nowNs)
            }
        }
    }

    private mutating func answered(_ slot: Int, _ answer: CurlTransport.Answer, nowNs: UInt64) {
        switch DeliveryVerdict(status: answer.status) {
        case .retry:
            deliveryFailed(slot, reason: "status \(answer.status)", retryAfterNs: answer.retryAfterNs, nowNs: nowNs)
        case .delivered:
            let parcel = settle(slot)
            report.delivered(spans: parcel.spans, after: retry.failures, answer, nowNs: nowNs)
            retry.succeeded()
        case .drop:
            let parcel = settle(slot)
            report.refused(spans: parcel.spans, trees: parcel.trees, answer, nowNs: nowNs)
            retry.succeeded()
        }
    }

    private mutating func deliveryFailed(_ slot: Int, reason: String, retryAfterNs: UInt64, nowNs: UInt64) {
        let startedNs = outbox.failed(slot: slot)
        retry.failed(startedNs: startedNs, nowNs: nowNs, retryAfterNs: retryAfterNs, random: random.next())
        report.deliveryFailed(reason: reason, pauseNs: retry.closedUntilNs - nowNs, nowNs: nowNs)
    }

    private mutating func settle(_ slot: Int) -> Outbox.Parcel {
        let parcel = outbox.settled(slot: slot)
        batcher.release(ledger.batchSettled(parcel.id))
        batcher.reuse(parcel.body.storage)
        return parcel
    }

    // MARK: Waiting

    private mutating func waitForWork(nowNs: UInt64) {
        let maySleep = rhythm.maySleep(isBatchOpen: batcher.state.isOpen, nowNs: nowNs) && !postMortems.isBlocked
        guard deadlineNs == nil, maySleep else {
            return transport.wait(descriptors: watch.descriptors, timeoutMs: timeoutMs(nowNs: nowNs, longestNs: stepNs))
        }
        guard batcher.fallAsleep() else { return }
        transport.wait(
            descriptors: watch.descriptors + [batcher.wakeDescriptor],
            timeoutMs: timeoutMs(nowNs: nowNs, longestNs: PollRhythm.backstopNs))
        batcher.wakeUp()
    }

    /// With the batch full and the outbox too, new trees could not be read anyway.
    private var stepNs: UInt64 {
        batcher.state.isFull && !outbox.hasRoom ? PollRhythm.backstopNs : PollRhythm.stepNs
    }

    /// Until the next thing that time alone brings about.
    private func timeoutMs(nowNs: UInt64, longestNs: UInt64) -> Int32 {
        var untilNs = nowNs + longestNs
        if let deadlineNs { untilNs = min(untilNs, deadlineNs) }
        if outbox.hasWaiting, retry.closedUntilNs > nowNs { untilNs = min(untilNs, retry.closedUntilNs) }
        if outbox.hasRoom, case .wait(let dueNs) = batcher.state.action(nowNs: nowNs, isDraining: false) {
            untilNs = min(untilNs, dueNs)
        }
        return Int32((max(untilNs, nowNs) - nowNs + 999_999) / 1_000_000)
    }

    private mutating func finish() {
        let unsettled = outbox.unsettled
        report.finished(lostTrees: unsettled.trees + batcher.state.trees + batcher.countUnread())
    }
}
