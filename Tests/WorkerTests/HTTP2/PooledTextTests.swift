import Testing

@testable import Worker

@Suite struct PooledTextTests {
    private let buffers = BufferPool()

    /// Passes `total` bytes through, of which about `waiting` are always left.
    private func capacity(waiting: Int, total: Int, piece: Int = 16384) -> (capacity: Int, isIntact: Bool) {
        let text = PooledText()
        let bytes = (0..<piece).map { UInt8(truncatingIfNeeded: $0) }
        var capacity = 0
        var taken = 0
        var isIntact = true
        for _ in 0..<(total / piece) {
            guard let buffer = text.room(piece, buffers) else { break }
            buffer.append(bytes.span)
            capacity = max(capacity, buffer.capacity)
            isIntact = isIntact && buffer.readable[0] == bytes[taken % piece]
            let surplus = max(0, buffer.readableBytes - waiting)
            buffer.consume(surplus)
            taken += surplus
        }
        return (capacity, isIntact)
    }

    @Test(arguments: [1, 10_000, 200_000])
    func whatPassesThroughDoesNotMakeItGrow(_ waiting: Int) {
        let result = capacity(waiting: waiting, total: 8 << 20)
        #expect(result.isIntact)
        #expect(result.capacity <= 4 * (waiting + 16384))
    }

    @Test func limitHolds() {
        let text = PooledText()
        #expect(text.room(100, buffers, bytesMax: 99) == nil)
        text.room(60, buffers, bytesMax: 99)?.append([UInt8](repeating: 0, count: 60).span)
        #expect(text.room(40, buffers, bytesMax: 99) == nil)
        #expect(text.room(39, buffers, bytesMax: 99) != nil)
    }
}
