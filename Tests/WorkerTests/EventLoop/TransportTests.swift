import ShmRing
import Testing

@testable import Worker

/// A connection whose bytes pass a transport.
@Suite struct TransportTests {
    private let transport = ScriptedTransport()
    private let buffers = BufferPool()
    private let connection = Connection(descriptor: -1, slot: 0, generation: 0)
    private static let readable = Readiness(
        isReadable: true, isWritable: false, peerFinished: false, isBroken: false, hasError: false)
    private static let writable = Readiness(
        isReadable: false, isWritable: true, peerFinished: false, isBroken: false, hasError: false)

    init() { connection.transport = transport }

    @Test func whatTheTransportReceivesArrivesInTheInput() {
        transport.receipts = [.bytes(Array("hello".utf8), isDrained: true)]
        connection.noticed(Self.readable)
        #expect(connection.receive(buffers) == .bytes(5))
        #expect(connection.input?.text == "hello")
        #expect(!connection.isReadable)
    }

    @Test func aShortReadIsNotTheEndOfWhatWaitsInside() {
        transport.receipts = [.bytes([1], isDrained: false), .bytes([2], isDrained: true)]
        connection.noticed(Self.readable)
        #expect(connection.receive(buffers) == .bytes(1))
        #expect(connection.isReadable, "no event will announce what the transport holds")
        #expect(connection.receive(buffers) == .bytes(1))
        #expect(connection.receive(buffers) == .wouldBlock)
    }

    @Test func aReceiveThatAwaitsRoomGoesOnWhenThereIsRoom() {
        transport.receipts = [.wouldBlock(awaitsWritable: true), .bytes([1], isDrained: true)]
        connection.noticed(Self.readable)
        #expect(connection.receive(buffers) == .wouldBlock)
        #expect(!connection.isReadable)
        connection.noticed(Self.writable)
        #expect(connection.receive(buffers) == .bytes(1))
    }

    @Test func roomMeansNothingToAReceiveThatAwaitsBytes() {
        transport.receipts = [.wouldBlock(awaitsWritable: false)]
        connection.noticed(Self.readable)
        #expect(connection.receive(buffers) == .wouldBlock)
        connection.noticed(Self.writable)
        #expect(!connection.isReadable)
    }

    @Test func aSendThatAwaitsBytesGoesOnWhenTheyAreThere() {
        transport.room = 0
        transport.sendAwaitsReadable = true
        connection.outputBuffer(room: 5, buffers).append("hello")
        #expect(connection.flush(buffers) == .wouldBlock)
        #expect(!connection.isWritable)
        transport.room = .max
        connection.noticed(Self.readable)
        #expect(connection.flush(buffers) == .bytes(0))
        #expect(transport.sentText == "hello")
    }

    @Test func anEndAndAFailureEndTheInput() {
        transport.receipts = [.failed(Errno(5))]
        connection.noticed(Self.readable)
        #expect(connection.receive(buffers) == .failed(Errno(5)))
        #expect(connection.sawEnd)
        #expect(connection.receive(buffers) == .endOfStream)
    }

    @Test func theOutputIsGoneWhenTheTransportHasHandedItOn() {
        transport.isOpen = false
        connection.outputBuffer(room: 5, buffers).append("hello")
        #expect(connection.flush(buffers) == .wouldBlock, "taken, but not on its way")
        #expect(connection.output == nil)
        #expect(connection.hasOutput)
        #expect(!connection.isWritable)
        transport.isOpen = true
        #expect(connection.flush(buffers) == .wouldBlock, "not before the event")
        connection.noticed(Self.writable)
        #expect(connection.flush(buffers) == .bytes(0))
        #expect(!connection.hasOutput)
        #expect(transport.sentText == "hello")
    }

    @Test func outputAndWhatFollowsGoOutInOrder() {
        connection.outputBuffer(room: 5, buffers).append("head ")
        #expect(connection.send(.holding("body and more"), countMax: 4) == .bytes(9))
        #expect(transport.sentText == "head body")
    }

    @Test func whatFollowsWaitsForTheOutput() {
        transport.room = 3
        connection.outputBuffer(room: 5, buffers).append("head ")
        let next = ByteBuffer.holding("body")
        #expect(connection.send(next, countMax: 4) == .bytes(3))
        #expect(connection.output?.text == "d ")
        #expect(next.text == "body")
        #expect(connection.send(next, countMax: 4) == .wouldBlock)
    }

    @Test func theEndsOfAConnectionReachItsTransport() {
        connection.finishSending()
        #expect(transport.hasFinished)
        connection.close(buffers)
        #expect(transport.wasReset == false)
        #expect(connection.transport == nil)
    }

    @Test func aResetIsToldToTheTransport() {
        connection.resetOnClose()
        connection.close(buffers)
        #expect(transport.wasReset == true)
    }
}

/// A body whose sink or source is a transport.
@Suite struct TransportRelayTests {
    private let buffers = BufferPool()
    private let transport = ScriptedTransport()
    private let throughTransport = Connection(descriptor: -1, slot: 0, generation: 0)
    private let peer = ScriptedPeer()

    init() { throughTransport.transport = transport }

    private func pump(_ relay: BodyRelay) -> BodyRelay.Outcome {
        peer.deliverEvents()
        return relay.pump(from: peer.connection, to: throughTransport, buffers)
    }

    @Test func aBodyIsNotFinishedBeforeTheTransportHandedItOn() {
        transport.isOpen = false
        let relay = BodyRelay(.length(5), writesChunks: false)
        peer.send("hello")
        #expect(pump(relay) == .sinkBlocked)
        transport.isOpen = true
        throughTransport.isWritable = true
        #expect(pump(relay) == .finished)
        #expect(transport.sentText == "hello")
        #expect(relay.sinkBytesTaken == 5)
    }

    @Test func nothingIsReadWhileTheTransportIsFull() {
        transport.room = 2
        let relay = BodyRelay(.length(10), writesChunks: false)
        peer.send("hello")
        #expect(pump(relay) == .sinkBlocked)
        #expect(peer.connection.input?.text == "llo")
        #expect(relay.bodyBytes == 2)
        #expect(!throughTransport.isWritable)
    }

    @Test func whatWaitsInsideTheSourceIsReadWithoutAnEvent() {
        transport.receipts = [.bytes(Array("hel".utf8), isDrained: false), .bytes(Array("lo".utf8), isDrained: true)]
        throughTransport.isReadable = true
        let relay = BodyRelay(.length(5), writesChunks: false)
        #expect(relay.pump(from: throughTransport, to: peer.connection, buffers) == .finished)
        #expect(peer.receivedText == "hello")
    }

    @Test func aChunkedBodyWaitsForTheTransportToo() {
        transport.isOpen = false
        let relay = BodyRelay(.chunked, writesChunks: true)
        peer.send("5\r\nhello\r\n0\r\n\r\n")
        #expect(pump(relay) == .sinkBlocked)
        transport.isOpen = true
        throughTransport.isWritable = true
        #expect(pump(relay) == .finished)
        #expect(transport.sentText == "5\r\nhello\r\n0\r\n\r\n")
    }
}
