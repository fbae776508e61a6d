/// Which batches hold which part of which ring, so that ring space is given back in order.
///
///     ring 0:  [ batch 1 settled ][ batch 2 in flight ][ batch 3 settled ]
///                                ▲ released up to here; batch 3 waits for batch 2
///
/// A batch is settled when it was delivered or deliberately dropped. Rings are independent: a batch that
/// holds nothing of a ring does not hold up that ring. Neighbours that are both settled become one entry,
/// so there are at most about twice as many entries as batches in flight.
/// - Note: `Mark` is where a batch ends in one ring (`SegmentConsumer.Position`).
struct DeliveryLedger<Mark> {
    typealias BatchID = UInt64

    private struct Entry {
        let id: BatchID
        /// By ring; nil where the batch holds nothing of it.
        var marks: [Mark?]
        var isSettled = false
    }

    private var entries: [Entry] = []
    private var nextID: BatchID = 0

    var entryCount: Int { entries.count }

    /// A batch was closed.
    /// - Parameter marks: By ring, how far the batch reaches; nil where it holds nothing.
    mutating func batchClosed(_ marks: [Mark?]) -> BatchID {
        defer { nextID += 1 }
        entries.append(Entry(id: nextID, marks: marks))
        return nextID
    }

    /// A batch needs its records no longer.
    /// - Returns: How far each ring may be released now; nil where nothing changes.
    mutating func batchSettled(_ id: BatchID) -> [Mark?] {
        guard let index = entries.firstIndex(where: { $0.id == id }) else {
            preconditionFailure("batch \(id) is not in the ledger")
        }
        entries[index].isSettled = true
        let released = entries[index].marks.indices.map { takeReleasable(ring: $0) }
        compact()
        return released
    }

    /// The last mark of a ring before the first batch that still needs it.
    private mutating func takeReleasable(ring: Int) -> Mark? {
        var last: Mark?
        for index in entries.indices {
            guard let mark = entries[index].marks[ring] else { continue }
            guard entries[index].isSettled else { break }
            last = mark
            entries[index].marks[ring] = nil
        }
        return last
    }

    private mutating func compact() {
        var kept: [Entry] = []
        for entry in entries where !entry.isSettled || entry.marks.contains(where: { $0 != nil }) {
            if entry.isSettled, let last = kept.last, last.isSettled {
                kept[kept.count - 1] = Entry(
                    id: entry.id, marks: zip(last.marks, entry.marks).map { $1 ?? $0 }, isSettled: true)
            } else {
                kept.append(entry)
            }
        }
        entries = kept
    }
}
