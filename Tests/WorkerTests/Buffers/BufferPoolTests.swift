import Testing

@testable import Worker

@Suite struct BufferPoolTests {
    @Test func aBufferThatCameBackIsGivenOutNext() {
        let pool = BufferPool()
        for size in [BufferPool.Size.small, .medium, .large] {
            let first = pool.take(size)
            let second = pool.take(size)
            pool.give(first)
            pool.give(second)
            #expect(pool.take(size) === second, "the last one is still in the cache")
            #expect(pool.take(size) === first)
        }
    }

    @Test func aBufferComesBackEmpty() {
        let pool = BufferPool()
        let buffer = pool.take(.small)
        buffer.append("secret of the last connection")
        pool.give(buffer)
        #expect(pool.take(.small).isEmpty)
        #expect(buffer.writableBytes == buffer.capacity)
    }

    @Test func twoTakersNeverShareABuffer() {
        let pool = BufferPool()
        let buffers = (0..<50).map { _ in pool.take(.medium) }
        #expect(Set(buffers.map(ObjectIdentifier.init)).count == 50)
    }

    @Test(arguments: [
        (0, 1024), (1, 1024), (1024, 1024), (1025, 16384), (16384, 16384), (16385, 65536), (65537, 1_048_576),
        (1_048_577, 1_048_577),
    ])
    func theSmallestSizeThatHoldsIsTaken(bytes: Int, capacity: Int) {
        let pool = BufferPool()
        #expect(pool.take(holding: bytes).capacity == capacity)
    }

    @Test(arguments: BufferPool.Size.allCases)
    func onlySoManyFreeBuffersAreKept(size: BufferPool.Size) {
        let pool = BufferPool()
        let given = (0..<(size.freeMax + 5)).map { _ in ByteBuffer(capacity: size.rawValue) }
        for buffer in given { pool.give(buffer) }
        let known = Set(given.map(ObjectIdentifier.init))
        let taken = (0..<given.count).map { _ in pool.take(size) }
        #expect(taken.filter { known.contains(ObjectIdentifier($0)) }.count == size.freeMax)
    }

    @Test func aBufferOfNoPoolSizeIsNotKept() {
        let pool = BufferPool()
        let odd = ByteBuffer(capacity: 5000)
        pool.give(odd)
        for size in BufferPool.Size.allCases { #expect(pool.take(size) !== odd) }
    }
}
