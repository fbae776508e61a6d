import Testing

/// libnghttp2's memory: `session_memory.h`.
@Suite(.enabled(if: SessionRange.exists)) struct SessionMemoryTests {
    @Test func everyBlockIsAlignedAndItsOwn() throws {
        let range = try #require(SessionRange())
        let blocks = (0...1200).map { range.take($0) }
        for block in blocks { block.fill(UInt8(block.size & 255)) }
        for block in blocks {
            #expect(block.exists && block.isAligned)
            #expect(block.holds(UInt8(block.size & 255)), "block of \(block.size) bytes")
        }
        for block in blocks { range.give(block) }
    }

    @Test func aFreedBlockIsUsedAgainForItsSizeAlone() throws {
        let range = try #require(SessionRange())
        let first = range.take(200)
        let second = range.take(200)
        range.give(first)
        range.give(second)
        #expect(range.take(100) != second)
        #expect(range.take(199) == second)
        #expect(range.take(200) == first)
        #expect(range.take(200) != first)
    }

    @Test func zeroedBlocksAreZeroedWhenTheyWereUsed() throws {
        let range = try #require(SessionRange())
        let block = range.take(300)
        block.fill(0xFF)
        range.give(block)
        let again = range.takeZeroed(100, 3)
        #expect(again == block && again.holds(0))
    }

    @Test(arguments: [(Int.max, 3), (Int.max, 2), (3, Int.max), (1 << 62, 4)])
    func sizesThatOverflowGetNothing(_ count: Int, _ size: Int) throws {
        let range = try #require(SessionRange())
        #expect(!range.takeZeroed(count, size).exists)
        #expect(!range.take(.max).exists)
        #expect(!range.take(-1).exists)
        let block = range.take(16)
        block.fill(1)
        #expect(!range.resize(block, .max).exists)
        #expect(block.holds(1))
        range.give(block)
    }

    @Test func aBlockThatGrowsKeepsItsBytes() throws {
        let range = try #require(SessionRange())
        var block = range.resize(nil, 1)
        block.fill(7)
        for size in [8, 9, 24, 25, 500, 512, 513, 4096, 100_000, 10] {
            let before = min(block.size, size)
            block = range.resize(block, size)
            #expect(block.holds(7, count: before))
            block.fill(7)
        }
        range.give(block)
        range.give(nil)
    }

    /// A full range leaves the rest to malloc, whose blocks are freed as such.
    @Test func moreThanTheRangeHoldsIsServed() throws {
        let range = try #require(SessionRange())
        let blocks = (0..<1000).map { _ in range.take(256) }
        for (index, block) in blocks.enumerated() { block.fill(UInt8(index & 255)) }
        for (index, block) in blocks.enumerated() { #expect(block.holds(UInt8(index & 255))) }
        for block in blocks { range.give(block) }
    }

    @Test func theFrameBufferTakesThePagesThatFramesReach() throws {
        let range = try #require(SessionRange())
        let first = range.take(64)
        let frames = range.take(16394)
        frames.fill(1, count: SessionRange.shortFrameBytes)
        let before = first.residentPages
        #expect(before == 2)
        frames.fill(1)
        #expect(first.residentPages == before + 4)
        let others = (0..<100).map { _ in range.take(256) }
        for block in others { block.fill(2) }
        #expect(frames.holds(1))
    }

    @Test(arguments: [false, true]) func whatIsPackedComesBackWhereItWas(_ sentLongFrames: Bool) throws {
        let range = try #require(SessionRange())
        let sparse = range.takeZeroed(1, 4096)
        let frames = range.take(16394)
        range.isMade()
        let blocks = (0..<120).map { range.take($0 * 2) }
        for (index, block) in blocks.enumerated() { block.fill(UInt8(index)) }
        frames.fill(9)
        for index in stride(from: 1, to: blocks.count, by: 2) { range.give(blocks[index]) }
        #expect(range.pack(sentLongFrames: sentLongFrames))
        #expect(!range.pack())
        // The pages that frames alone are in stay as they are when nobody says that frames were long.
        #expect(sparse.residentPages == (sentLongFrames ? 0 : 3))
        range.wake()
        range.wake()
        #expect(range.packedBytes == 0)
        #expect(frames.holds(9) && sparse.holds(0))
        for index in stride(from: 0, to: blocks.count, by: 2) { #expect(blocks[index].holds(UInt8(index))) }
        // Those that are free are known again as well, in their order.
        #expect(range.take(119 * 2) == blocks[119])
    }

    @Test func whatWasFreedTakesNoRoomPacked() throws {
        let range = try #require(SessionRange())
        let blocks = (0..<50).map { _ in range.take(512) }
        for block in blocks { block.fill(1) }
        #expect(range.pack())
        #expect(range.packedBytes > 50 * 512)
        range.wake()
        for block in blocks { range.give(block) }
        #expect(range.pack())
        #expect(range.packedBytes < 50 * 64)
    }

    @Test(arguments: [false, true]) func memoryThatIsGivenBackIsEmptyForTheNext(_ isPacked: Bool) throws {
        let range = try #require(SessionRange())
        let first = range.take(512)
        let frames = range.take(16394)
        let others = (0..<40).map { _ in range.take(512) }
        for block in [first, frames] + others { block.fill(1) }
        if isPacked { #expect(range.pack()) }
        #expect(range.renew())
        #expect(range.packedBytes == 0)
        if isPacked { #expect(first.residentPages == 1) }
        #expect(range.takeZeroed(1, 512) == first)
        #expect(range.take(16394) == frames)
        for block in others { #expect(range.takeZeroed(1, 512) == block) }
        for block in [first] + others { #expect(block.holds(0)) }
    }

    @Test func addressesAreGivenBackWithTheLastSessionInThem() throws {
        let range = try #require(SessionRange())
        let one = range.mappedBytes
        #expect(range.mappedBytes(with: 100) == 4 * one)
        #expect(range.mappedBytes == one)
    }
}
