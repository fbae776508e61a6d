import CShims

// Any bytes as the in-flight table and the death record that a broken process left behind. Checked: reading ends, what
// comes out is within its limits, times are in order, nothing is told twice, and a sound entry beside the damage is
// told. Unsafe: fills shared memory.
//
// Input: eight bytes for the table's number of used entries, 32 for the death record, the rest as entries.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let bytes = unsafe FuzzInput(start, count).bytes
    guard bytes.count >= 40 else { return 0 }
    DamagedTable.fill(bytes)
    readEverything()
    checkSoundEntry()
    return 0
}

private enum DamagedTable {
    /// One segment for all runs; a run begins by clearing it. The fuzzer has one thread.
    @safe nonisolated(unsafe) static let segment: SpanSegment = {
        do { return try SpanSegment(ringCount: 1, ringBytesMin: 0, generation: 1, masterPID: 1) } catch {
            fatalError("\(error)")
        }
    }()

    /// More than the longest input fills.
    static let entriesMax = 16

    static func fill(_ bytes: [UInt8]) {
        for incarnation in 0..<LB_DEATHS {
            unsafe segment.deathRecord(slot: 0, incarnation: incarnation).pointee = lb_death_record()
            unsafe segment.inflightHeader(slot: 0, incarnation: incarnation).pointee.used = 0
        }
        let used = bytes.prefix(8).reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
        unsafe segment.inflightHeader(slot: 0, incarnation: 0).pointee.used = used
        let record = unsafe UnsafeMutableRawPointer(segment.deathRecord(slot: 0, incarnation: 0))
        for index in 0..<32 { unsafe record.storeBytes(of: bytes[8 + index], toByteOffset: index, as: UInt8.self) }
        let entries = unsafe UnsafeMutableRawPointer(segment.inflightEntries(slot: 0, incarnation: 0))
        let room = entriesMax * MemoryLayout<lb_inflight_entry>.stride
        unsafe entries.initializeMemory(as: UInt8.self, repeating: 0, count: room)
        for (index, byte) in bytes.dropFirst(40).prefix(room).enumerated() {
            unsafe entries.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
        }
    }
}

private func readEverything() {
    var reader = DamagedTable.segment.postMortemReader()
    var deaths = 0
    while let death = reader.nextDeath() {
        deaths += 1
        require(deaths <= Int(LB_DEATHS), "a death that is settled does not come again")
        require(death.slot == 0 && death.incarnation % LB_DEATHS == 0, "only the record that was filled is a death")
        let count = reader.entryCount(of: death)
        require(count <= Int(LB_INFLIGHT_ENTRIES), "a table has its size")
        for index in 0..<min(count, DamagedTable.entriesMax) {
            if let request = reader.take(index, of: death) { check(request, death) }
            reader.forget(index, of: death)
            require(reader.take(index, of: death) == nil, "what is forgotten is not told again")
        }
        reader.settle(death)
    }
}

private func check(_ request: InterruptedRequest, _ death: WorkerDeath) {
    require(request.spanID != 0 && (request.traceID.high | request.traceID.low) != 0, "ids are ids")
    require(request.startUnixNs <= death.unixNs, "a request does not begin after its end")
    require(request.method.count <= Int(LB_INFLIGHT_METHOD_BYTES), "a method has its room")
    require(request.authority.count <= Int(LB_INFLIGHT_AUTHORITY_BYTES), "an authority has its room")
    require(request.path.count <= Int(LB_INFLIGHT_PATH_BYTES), "a path has its room")
    require(request.backend.map { $0.host.count <= Int(LB_INFLIGHT_BACKEND_BYTES) } ?? true, "a name has its room")
    guard let attempt = request.attempt else { return }
    let lifetime = death.unixNs - request.startUnixNs
    require(attempt.spanID != 0 && attempt.startNs <= lifetime, "an attempt lies within its request")
    guard let response = attempt.response else { return }
    require((100...999).contains(response.status), "a status is one")
    require(response.startNs >= attempt.startNs && response.startNs <= lifetime, "a response lies within its attempt")
}

/// A later process of the slot takes the table over, whatever is in it, and its death is told.
private func checkSoundEntry() {
    let segment = DamagedTable.segment
    let incarnation = LB_DEATHS
    let table = segment.inflightTable(slot: 0, incarnation: incarnation)
    let index = table.take()
    let noText: [UInt8] = []
    table.begin(
        index,
        InflightTable.Identity(
            traceIDHigh: 1, traceIDLow: 2, spanID: 3, parentSpanID: 0, flags: 1, startUnixNs: 10),
        method: noText.span, authority: noText.span, path: noText.span)
    segment.noteDeath(slot: 0, incarnation: incarnation, signal: 9, unixNs: 20)
    var reader = segment.postMortemReader()
    guard let death = reader.nextDeath() else { fatalError("broken invariant: a death that was noted is seen") }
    require(death.incarnation == incarnation, "the last death is seen")
    let told = (0..<reader.entryCount(of: death)).compactMap { reader.take($0, of: death)?.spanID }
    require(told == [3], "the new owner's request is told, and nobody else's")
}
