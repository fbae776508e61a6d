import ShmRing
import Testing

@testable import Worker

@Suite struct ByteBufferTests {
    @Test func aNewBufferIsEmpty() {
        let buffer = ByteBuffer(capacity: 10)
        #expect(buffer.isEmpty)
        #expect(buffer.readableBytes == 0)
        #expect(buffer.writableBytes == 10)
    }

    @Test func whatIsAppendedIsReadInOrder() {
        let buffer = ByteBuffer(capacity: 20)
        buffer.append("abc")
        buffer.append(string: "de")
        buffer.append(UInt8(ascii: "f"))
        buffer.append(Array("ghi".utf8))
        #expect(buffer.text == "abcdefghi")
        #expect(buffer.writableBytes == 11)
    }

    @Test func appendingNothingChangesNothing() {
        let buffer = ByteBuffer.holding("ab", capacity: 2)
        buffer.append("")
        buffer.append(string: "")
        buffer.append([UInt8]())
        #expect(buffer.text == "ab")
    }

    @Test func consumedBytesAreGone() {
        let buffer = ByteBuffer.holding("abcdef", capacity: 6)
        buffer.consume(2)
        #expect(buffer.text == "cdef")
        #expect(buffer.writableBytes == 0, "room comes back by compaction only")
        buffer.compact()
        #expect(buffer.text == "cdef")
        #expect(buffer.writableBytes == 2)
    }

    @Test func aBufferThatWasReadToItsEndHasAllItsRoomAgain() {
        let buffer = ByteBuffer.holding("abcdef", capacity: 6)
        buffer.consume(6)
        #expect(buffer.isEmpty)
        #expect(buffer.writableBytes == 6)
    }

    @Test func compactionMovesOverlappingBytesWhole() {
        let buffer = ByteBuffer(capacity: 1000)
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        buffer.append(bytes)
        buffer.consume(1)
        buffer.compact()
        #expect(buffer.bytes == Array(bytes.dropFirst()))
    }

    @Test(arguments: [0, 7, 9, 10, 99, 100, 1_234_567, Int.max])
    func decimalsAreWrittenWithoutLeadingZeros(value: Int) {
        let buffer = ByteBuffer(capacity: 20)
        buffer.append(decimal: value)
        #expect(buffer.text == "\(value)")
    }

    @Test(
        arguments: [
            (0, 1, "0"), (0xAB, 2, "ab"), (0xAB, 4, "00ab"), (.max, 16, "ffffffffffffffff"), (0x1_2345, 4, "2345"),
        ] as [(UInt64, Int, String)])
    func hexadecimalsHaveTheDigitsAskedFor(value: UInt64, digits: Int, text: String) {
        let buffer = ByteBuffer(capacity: 20)
        buffer.append(hex: value, digits: digits)
        #expect(buffer.text == text)
    }

    @Test func truncationDropsFromTheEnd() {
        let buffer = ByteBuffer.holding("abcdef", capacity: 6)
        buffer.consume(1)
        buffer.truncate(to: 3)
        #expect(buffer.text == "bcd")
        buffer.truncate(to: 0)
        #expect(buffer.isEmpty)
    }

    @Test func writingTakesNoMoreThanAskedFor() throws {
        let pipe = try LogPipe()
        let buffer = ByteBuffer.holding("abcdef")
        #expect(buffer.write(to: pipe.writing, countMax: 4) == .bytes(4))
        #expect(buffer.write(to: pipe.writing) == .bytes(2))
        #expect(pipe.read() == "abcdef")
    }

    @Test func receivingAppends() {
        let peer = ScriptedPeer()
        let buffer = ByteBuffer.holding("a", capacity: 4)
        peer.send("bcdef")
        #expect(buffer.receive(from: peer.connection.descriptor) == .bytes(3))
        #expect(buffer.text == "abcd")
        buffer.consume(4)
        #expect(buffer.receive(from: peer.connection.descriptor) == .bytes(2))
        #expect(buffer.receive(from: peer.connection.descriptor) == .wouldBlock)
        peer.finish()
        #expect(buffer.receive(from: peer.connection.descriptor) == .endOfStream)
        #expect(buffer.text == "ef")
    }

    @Test func sendingTakesNoMoreThanAskedFor() {
        let peer = ScriptedPeer()
        let buffer = ByteBuffer.holding("abcdef")
        #expect(buffer.send(to: peer.connection.descriptor, countMax: 4) == .bytes(4))
        #expect(buffer.text == "ef")
        #expect(peer.receivedText == "abcd")
    }

    @Test func twoBuffersGoOutAsOneMessage() {
        let peer = ScriptedPeer()
        let head = ByteBuffer.holding("head|")
        let body = ByteBuffer.holding("bodybody")
        #expect(head.send(to: peer.connection.descriptor, then: body, countMax: 4) == .bytes(9))
        #expect(head.isEmpty)
        #expect(body.text == "body")
        #expect(peer.receivedText == "head|body")
    }

    @Test func whatTheKernelTookIsConsumedAcrossBothBuffers() {
        let peer = ScriptedPeer(roomBytes: 4096)
        let sizes = (head: 900, body: 60_000)
        let head = ByteBuffer(capacity: sizes.head)
        head.append([UInt8](repeating: 1, count: sizes.head))
        let body = ByteBuffer(capacity: sizes.body)
        body.append((0..<sizes.body).map { UInt8(truncatingIfNeeded: $0 / 3) })
        let wanted = head.bytes + body.bytes
        var received: [UInt8] = []
        var turns = 0
        while !body.isEmpty, turns < 1000 {
            turns += 1
            let result = head.send(to: peer.connection.descriptor, then: body, countMax: .max)
            let piece = peer.receive()
            if case .bytes(let count) = result { #expect(count == piece.count) }
            received += piece
        }
        #expect(turns > 1, "the socket took everything at once, so nothing was tested")
        #expect(received == wanted)
    }

    @Test func sendingToNobodyFailsWithoutASignal() {
        let peer = ScriptedPeer()
        peer.close()
        let buffer = ByteBuffer.holding("abc")
        guard case .failed = buffer.send(to: peer.connection.descriptor) else { return #expect(Bool(false), "sent") }
        #expect(buffer.text == "abc")
    }
}
