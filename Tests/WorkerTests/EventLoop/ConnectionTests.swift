import ShmRing
import Testing

@testable import Worker

@Suite struct ConnectionTests {
    private let peer = ScriptedPeer(roomBytes: 8192)
    private var connection: Connection { peer.connection }

    private static func pattern(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 2) }
    }

    /// One read after hearing of events.
    private func receive(_ buffers: BufferPool) -> IOResult {
        peer.deliverEvents()
        return connection.receive(buffers)
    }

    @Test func nothingIsReadBeforeTheKernelAnnouncedAnything() {
        let buffers = BufferPool()
        peer.send("x")
        #expect(connection.receive(buffers) == .wouldBlock)
        #expect(connection.input == nil)
    }

    @Test func bytesArriveInTheInput() {
        let buffers = BufferPool()
        peer.send("hello")
        #expect(receive(buffers) == .bytes(5))
        #expect(connection.input?.text == "hello")
        #expect(connection.hasInput)
    }

    @Test func aShortReadEmptiedTheSocket() {
        let buffers = BufferPool()
        peer.send("hello")
        _ = receive(buffers)
        #expect(!connection.isReadable)
        peer.send(" again")
        #expect(receive(buffers) == .bytes(6))
        #expect(connection.input?.text == "hello again")
    }

    @Test func anEndThatWasAnnouncedWithTheLastBytesIsRead() {
        let buffers = BufferPool()
        peer.send("bye")
        peer.finish()
        #expect(receive(buffers) == .bytes(3))
        #expect(connection.peerFinished)
        #expect(connection.receive(buffers) == .endOfStream, "no further event comes")
        #expect(connection.sawEnd)
    }

    @Test func theEndStaysTheEnd() {
        let buffers = BufferPool()
        peer.finish()
        for _ in 0..<3 { #expect(receive(buffers) == .endOfStream) }
        #expect(connection.input == nil)
    }

    @Test func aResetIsAFailure() {
        let buffers = BufferPool()
        connection.output = ByteBuffer.holding("unread by the peer")
        _ = connection.flush(buffers)
        peer.close()
        guard case .failed = receive(buffers) else { return #expect(Bool(false), "no failure") }
        #expect(connection.sawEnd)
        #expect(connection.input == nil)
    }

    @Test func aReadInVainKeepsNoBuffer() {
        let buffers = BufferPool()
        connection.isReadable = true
        #expect(connection.receive(buffers) == .wouldBlock)
        #expect(connection.input == nil)
        #expect(!connection.isReadable)
    }

    @Test func theInputGrowsWithAHeadThatIsNotUsedUp() {
        let buffers = BufferPool()
        var sent: [UInt8] = []
        while sent.count < 200_000 {
            let piece = Self.pattern(30_000)
            let count = peer.send(piece)
            sent += piece.prefix(count)
            while case .bytes = receive(buffers) {}
        }
        #expect(connection.input?.bytes == sent)
    }

    @Test func flushingNothingIsDoneAtOnce() {
        let buffers = BufferPool()
        #expect(connection.flush(buffers) == .bytes(0))
    }

    @Test func whatTheKernelTakesLeavesNoBufferBehind() {
        let buffers = BufferPool()
        connection.outputBuffer(room: 5, buffers).append("hello")
        #expect(connection.hasOutput)
        #expect(connection.flush(buffers) == .bytes(0))
        #expect(connection.output == nil)
        #expect(peer.receivedText == "hello")
    }

    @Test func whatTheKernelRefusesWaitsForItsEvent() {
        let buffers = BufferPool()
        let message = Self.pattern(300_000)
        connection.outputBuffer(room: message.count, buffers).append(message)
        #expect(connection.flush(buffers) == .wouldBlock)
        #expect(!connection.isWritable)
        var received = peer.receive()
        #expect(received.count < message.count)
        #expect(connection.flush(buffers) == .wouldBlock, "not before the event")
        while connection.hasOutput {
            peer.deliverEvents()
            guard connection.isWritable else { return #expect(Bool(false), "no event though there is room") }
            _ = connection.flush(buffers)
            received += peer.receive()
        }
        #expect(received == message)
        #expect(connection.output == nil)
    }

    @Test func writingToAPeerThatIsGoneFails() {
        let buffers = BufferPool()
        peer.close()
        connection.outputBuffer(room: 5, buffers).append("hello")
        guard case .failed = connection.flush(buffers) else { return #expect(Bool(false), "no failure") }
    }

    @Test func moreOutputJoinsWhatWaits() {
        let buffers = BufferPool()
        connection.outputBuffer(room: 3, buffers).append("one")
        let first = connection.output
        connection.outputBuffer(room: 3, buffers).append("two")
        #expect(connection.output === first)
        #expect(connection.output?.text == "onetwo")
    }

    @Test func anOutputThatIsTooSmallIsReplacedWithItsBytesKept() {
        let buffers = BufferPool()
        connection.outputBuffer(room: 16, buffers).append("head")
        let output = connection.outputBuffer(room: 40_000, buffers)
        #expect(output.writableBytes >= 40_000)
        #expect(connection.output === output)
        #expect(output.text == "head")
    }

    @Test func anOutputIsCompactedBeforeItIsReplaced() {
        let buffers = BufferPool()
        let output = connection.outputBuffer(room: 16_384, buffers)
        output.append(Self.pattern(16_000))
        output.consume(15_000)
        #expect(connection.outputBuffer(room: 10_000, buffers) === output)
        #expect(output.readableBytes == 1000)
    }

    @Test func aFewBytesAreParkedInASmallBuffer() {
        let buffers = BufferPool()
        peer.send("GET / HT")
        _ = receive(buffers)
        connection.parkInput(buffers)
        #expect(connection.input?.capacity == BufferPool.Size.small.rawValue)
        #expect(connection.input?.text == "GET / HT")
        peer.send("TP/1.1\r\n")
        _ = receive(buffers)
        #expect(connection.input?.text == "GET / HTTP/1.1\r\n")
    }

    @Test func manyBytesStayWhereTheyAre() {
        let buffers = BufferPool()
        let message = Self.pattern(BufferPool.Size.small.rawValue + 1)
        peer.send(message)
        _ = receive(buffers)
        let before = connection.input
        connection.parkInput(buffers)
        #expect(connection.input === before)
        #expect(connection.input?.bytes == message)
    }

    @Test func parkingNothingGivesTheBufferBack() {
        let buffers = BufferPool()
        let buffer = buffers.take(.large)
        connection.input = buffer
        connection.parkInput(buffers)
        #expect(connection.input == nil)
        #expect(buffers.take(.large) === buffer)
    }

    @Test func usedUpInputGoesBackToThePool() {
        let buffers = BufferPool()
        peer.send("abc")
        _ = receive(buffers)
        let buffer = connection.input
        buffer?.consume(2)
        connection.releaseEmptyInput(buffers)
        #expect(connection.input === buffer, "a byte is left")
        buffer?.consume(1)
        connection.releaseEmptyInput(buffers)
        #expect(connection.input == nil)
        #expect(buffers.take(.large) === buffer)
    }

    @Test func closingGivesBothBuffersBackAndEndsThePeersBytes() {
        let buffers = BufferPool()
        peer.send("abc")
        _ = receive(buffers)
        let input = connection.input
        let output = connection.outputBuffer(room: 10, buffers)
        output.append("never sent")
        connection.close(buffers)
        #expect(connection.isClosed)
        #expect(connection.input == nil)
        #expect(connection.output == nil)
        #expect(buffers.take(.large) === input)
        #expect(buffers.take(.medium) === output)
        #expect(peer.receive().isEmpty)
    }
}
