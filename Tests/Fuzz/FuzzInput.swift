// What every fuzz target needs. `scripts/fuzz` compiles each target into one module with the source files
// that it tests, so that it sees their internals and nothing else is built. Unsafe: the input arrives as a
// pointer, and is copied at once into memory of exactly its size, where a read beside it is found.

/// The input of one run.
struct FuzzInput {
    let bytes: [UInt8]

    init(_ start: UnsafePointer<UInt8>?, _ count: Int) {
        bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    }

    /// Lengths of prefixes worth trying: a few spread over the input by its own bytes, so that a run can be
    /// repeated, and the last one short of the whole.
    var prefixCounts: [Int] {
        guard !bytes.isEmpty else { return [] }
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        let spread = (0..<8).map { Int((hash >> UInt64($0 * 7)) % UInt64(bytes.count)) }
        return (spread + [bytes.count - 1]).sorted()
    }
}

/// Stops the run, which the fuzzer reports as a crash, when an invariant does not hold.
func require(_ condition: Bool, _ invariant: StaticString, line: UInt = #line) {
    guard !condition else { return }
    fatalError("broken invariant at line \(line): \(invariant)")
}
