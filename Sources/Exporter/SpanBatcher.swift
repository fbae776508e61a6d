import ShmRing

/// Reads rings and encodes what it finds into the open batch.
///
/// Owns the reading end of the segment, the encoder, and the storages of bodies, of which there are never
/// more than batches. Rings are visited in turn and a few trees at a time, so that a busy worker cannot keep
/// the others waiting. What a batch holds of each ring is remembered as marks for the `DeliveryLedger`.
struct SpanBatcher<Format: OTLPFormat & ~Copyable>: ~Copyable {
    /// A closed batch. Without spans when all its records were malformed.
    struct Closed {
        let body: PostBody?
        let spans: Int
        let trees: Int
        let marks: [SegmentConsumer.Position?]
    }

    private static var treesPerTurn: Int { 64 }
    private static var storageBytes: Int { 256 * 1024 }

    private var consumer: SegmentConsumer
    private var walk: TreeWalk
    private var format: Format
    private(set) var state: BatchState
    private var marks: [SegmentConsumer.Position?]
    private var firstRing = 0
    private var spareStorages: [ByteStorage] = []
    /// Records that contradicted themselves.
    private(set) var malformedCount: UInt64 = 0

    init(
        consumer: consuming SegmentConsumer, resource: ExporterConfiguration.Resource,
        naming: ExporterConfiguration.AttributeNaming, limits: BatchState.Limits
    ) {
        marks = Array(repeating: nil, count: consumer.ringCount)
        self.consumer = consumer
        walk = TreeWalk(naming: naming)
        format = Format(resource)
        state = BatchState(limits)
    }

    var unknownCount: UInt64 { walk.unknownCount }
    var corruptionCount: UInt64 { consumer.corruptions }
    var areRingsEmpty: Bool { consumer.isEmpty }
    var wakeDescriptor: Int32 { consumer.wakeDescriptor }

    /// Reads until the rings are empty or the batch is full.
    /// - Returns: Whether anything was read.
    mutating func fill(nowNs: UInt64) -> Bool {
        var hasRead = false
        while !state.isFull, visitRings(nowNs: nowNs) { hasRead = true }
        return hasRead
    }

    /// Closes the open batch, which has read something.
    mutating func close(nowNs: UInt64) -> Closed {
        let body = state.isOpen ? format.finish(replacement: spareStorages.popLast() ?? newStorage()) : nil
        let closed = Closed(body: body, spans: state.spans, trees: state.trees, marks: marks)
        for ring in marks.indices { marks[ring] = nil }
        state.posted(nowNs: nowNs)
        return closed
    }

    /// Something was read, yet there is nothing to send: close it so that its space is given back.
    var holdsOnlyWaste: Bool { !state.isOpen && marks.contains { $0 != nil } }

    func release(_ positions: [SegmentConsumer.Position?]) {
        for case let position? in positions { consumer.release(through: position) }
    }

    /// Takes back the storage of a body that is no longer needed.
    mutating func reuse(_ storage: ByteStorage) {
        spareStorages.append(storage)
    }

    func beat(nowNs: UInt64) {
        consumer.beat(nowNs: nowNs)
    }

    /// See `SegmentConsumer.fallAsleep`; gives spare memory back first, as it may be a long time.
    mutating func fallAsleep() -> Bool {
        spareStorages.removeAll()
        return consumer.fallAsleep()
    }

    func wakeUp() {
        consumer.wakeUp()
    }

    /// Counts the trees that are still in the rings, by reading them for good.
    mutating func countUnread() -> Int {
        var trees = 0
        for ring in marks.indices {
            while consumer.next(slot: ring, { _ in () }) != nil { trees += 1 }
        }
        return trees
    }

    /// A few trees of every ring.
    private mutating func visitRings(nowNs: UInt64) -> Bool {
        var hasRead = false
        for turn in marks.indices {
            let ring = (firstRing + turn) % marks.count
            for _ in 0..<Self.treesPerTurn {
                guard !state.isFull, takeTree(ring: ring, nowNs: nowNs) else { break }
                hasRead = true
            }
        }
        firstRing = (firstRing + 1) % marks.count
        return hasRead
    }

    private mutating func takeTree(ring: Int, nowNs: UInt64) -> Bool {
        guard let (spans, end) = Self.encodeNext(ring, &consumer, &walk, &format) else { return false }
        marks[ring] = end
        if let spans {
            state.treeAdded(spans: spans, batchBytes: format.byteCount, nowNs: nowNs)
        } else {
            malformedCount += 1
        }
        return true
    }

    /// Static, as its closure changes one part of the value while another lends the record.
    private static func encodeNext(
        _ ring: Int, _ consumer: inout SegmentConsumer, _ walk: inout TreeWalk, _ format: inout Format
    ) -> (result: Int?, end: SegmentConsumer.Position)? {
        consumer.next(slot: ring) { record in
            if let spans = format.addUsual(record, &walk) { return spans }
            let mark = format.byteCount
            let spans = walk.walk(record, into: &format)
            if spans == nil { format.rollBack(to: mark) }
            return spans
        }
    }

    private func newStorage() -> ByteStorage {
        ByteStorage(capacityBytes: Self.storageBytes)
    }
}
