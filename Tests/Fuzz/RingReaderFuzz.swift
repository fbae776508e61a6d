import CShims

// Any bytes as a ring that a broken writer left behind. Checked: reading ends, stays inside the records, and
// gives each byte once; and afterwards a new writer's tree comes through. Unsafe: fills shared memory.
//
// Input: one byte that says where the head stands and whether the tail fits the data, eight bytes for the
// tail where it does not, then the ring's data from the head on.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let bytes = unsafe FuzzInput(start, count).bytes
    guard bytes.count >= 9 else { return 0 }
    DamagedRing.fill(bytes)
    readEverything()
    checkRecovery()
    return 0
}

private enum DamagedRing {
    /// One segment for all runs; a run begins by clearing it. The fuzzer has one thread.
    @safe nonisolated(unsafe) static let segment: SpanSegment = {
        do { return try SpanSegment(ringCount: 1, ringBytesMin: 0, generation: 1, masterPID: 1) } catch {
            fatalError("\(error)")
        }
    }()

    static func fill(_ bytes: [UInt8]) {
        let data = bytes.dropFirst(9)
        let head = headCount(bytes[0])
        let distance = (1...8).reduce(0 as UInt64) { $0 << 8 | UInt64(bytes[$1]) }
        let tail = head &+ (bytes[0] & 0x80 == 0 ? UInt64(data.count & ~7) : distance)
        unsafe lb_store_release(&segment.ring(0).pointee.head, head)
        unsafe lb_store_release(&segment.ring(0).pointee.tail, tail)
        unsafe segment.data(0).initializeMemory(as: UInt8.self, repeating: 0, count: segment.ringBytes)
        for (index, byte) in data.enumerated() {
            let offset = Int((head &+ UInt64(index)) & UInt64(segment.ringBytes - 1))
            unsafe segment.data(0).storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
        }
    }

    /// At the start of the data, near its end, and where the counts wrap around.
    private static func headCount(_ choice: UInt8) -> UInt64 {
        switch choice & 3 {
        case 0: 0
        case 1: UInt64(segment.ringBytes) - 128
        case 2: UInt64.max - 127
        default: UInt64(choice)
        }
    }
}

private func readEverything() {
    var consumer = DamagedRing.segment.consumer()
    let waiting = consumer.unreadBytes(slot: 0)
    var bytesRead = 0
    var last: SegmentConsumer.Position?
    while let (record, end) = consumer.next(slot: 0, { unsafe $0.withUnsafeBytes { unsafe Array($0) } }) {
        require(
            record.count >= 8 && record.count % 8 == 0 && record.count <= Int(LB_RECORD_BYTES_MAX),
            "a record's size can be")
        bytesRead += record.count
        readRecord(record)
        last = end
    }
    require(bytesRead <= waiting, "no byte is read twice")
    require(consumer.isEmpty, "everything is read or skipped")
    require(consumer.corruptions <= 1, "one damage is counted once")
    if let last { consumer.release(through: last) }
}

/// The fuzzer has one thread.
nonisolated(unsafe) private let expander = RequestExpander()

/// Reads a record to its end. It lies in memory of exactly its size, so that a read beside it is found. A request
/// record that is let through stands for a whole tree.
private func readRecord(_ record: [UInt8]) {
    var spansOfRequest: Int?
    if let request = unsafe RequestReader(record.span.bytes) {
        require(request.strategy.upperBound + Int(LB_REQUEST_TAIL_BYTES) <= record.count, "the texts lie inside")
        spansOfRequest = request.spanCount
    }
    _ = unsafe expander.withTree(record.span.bytes) { tree -> Void? in
        let spans = readTree(tree)
        require(spansOfRequest == nil || spans == spansOfRequest, "a request has its spans")
        return ()
    }
}

/// - Returns: How many spans there were.
private func readTree(_ record: RawSpan) -> Int {
    guard var reader = TreeReader(record) else { return 0 }
    require(reader.traceState.upperBound <= record.byteCount, "the trace state lies inside")
    var spans = 0
    while let span = reader.nextSpan() {
        require(span.startOffsetNs <= span.endOffsetNs, "a span does not end before it starts")
        require(span.parentIndex.map { $0 < spans } ?? (spans == 0), "a parent stands before its child")
        spans += 1
        readBody(span, &reader)
    }
    require(spans == reader.spanCount || reader.isMalformed, "a missing span is said")
    return spans
}

private func readBody(_ span: TreeReader.SpanRecord, _ reader: inout TreeReader) {
    var cursor = span.attributes
    readAttributes(&cursor, &reader)
    for _ in 0..<span.eventCount {
        guard let event = reader.nextEvent(cursor, of: span) else {
            require(reader.isMalformed, "a missing event is said")
            return
        }
        cursor = event.attributes
        readAttributes(&cursor, &reader)
    }
    for _ in 0..<span.linkCount {
        guard let link = reader.nextLink(cursor, of: span) else {
            require(reader.isMalformed, "a missing link is said")
            return
        }
        cursor = link.attributes
        readAttributes(&cursor, &reader)
    }
}

private func readAttributes(_ cursor: inout TreeReader.AttributeCursor, _ reader: inout TreeReader) {
    var lastEnd = 0
    while let (_, value) = reader.nextAttribute(&cursor) {
        switch value {
        case .bool, .int: break
        case .string(let range):
            require(range.lowerBound >= lastEnd && range.upperBound <= reader.bytes.byteCount, "a text lies inside")
            lastEnd = range.upperBound
        case .strings(var rest):
            let all = rest
            require(all.lowerBound >= lastEnd && all.upperBound <= reader.bytes.byteCount, "a list lies inside")
            lastEnd = all.upperBound
            while let text = reader.nextString(&rest) {
                require(text.lowerBound >= all.lowerBound && text.upperBound <= all.upperBound, "its texts lie in it")
            }
        }
    }
    require(cursor.remaining == 0 || reader.isMalformed, "a missing attribute is said")
}

/// A successor of the writer and one of the reader get a tree across, at the latest with the second.
private func checkRecovery() {
    var consumer = DamagedRing.segment.consumer()
    var producer = DamagedRing.segment.producer(slot: 0)
    for round in 1...2 as ClosedRange<UInt64> {
        if publish(round, &producer), drain(&consumer).contains(round) { return }
        _ = drain(&consumer)
    }
    fatalError("broken invariant: the ring works again")
}

private func publish(_ number: UInt64, _ producer: inout RingProducer) -> Bool {
    guard var writer = producer.reserve(bytesMax: 256) else { return false }
    let state: [UInt8] = []
    writer.begin(
        traceID: (number, ~number), parentSpanID: 0, traceFlags: 0, baseUnixNs: 0, traceState: state.span)
    writer.beginSpan(.proxyRequest, kind: .server, id: 1, parent: nil, startOffsetNs: 0, endOffsetNs: 0)
    producer.publish(writer)
    return true
}

/// The numbers of the trees of `publish` that wait.
private func drain(_ consumer: inout SegmentConsumer) -> [UInt64] {
    var numbers: [UInt64] = []
    while let (number, end) = consumer.next(slot: 0, number) {
        if let number { numbers.append(number) }
        consumer.release(through: end)
    }
    return numbers
}

private func number(_ record: RawSpan) -> UInt64? {
    guard let reader = TreeReader(record), reader.traceID.low == ~reader.traceID.high else { return nil }
    return reader.traceID.high
}
