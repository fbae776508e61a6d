import Glibc
import ShmRing
import Testing

@testable import Worker

/// Sessions against each other over a socket pair.
@Suite struct TLSSessionTests {
    private func openPair(roomBytes: Int32? = nil) throws -> TLSPair {
        let pair = TLSPair(try TLSPair.server("a"), try TLSPair.client(), roomBytes: roomBytes)
        let outcome = pair.shakeHands()
        try #require(outcome == (.done, .done))
        return pair
    }

    private static func pattern(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 2) }
    }

    @Test func bothSidesAgree() throws {
        let pair = try openPair()
        #expect(pair.server.version == "1.3")
        #expect(pair.client.version == "1.3")
        #expect(pair.client.cipher == "TLS_AES_128_GCM_SHA256")
        #expect(pair.server.applicationProtocol == "h2")
        #expect(pair.client.applicationProtocol == "h2")
        #expect(!pair.client.isResumed)
        #expect(pair.client.serverName == "a.test")
    }

    @Test func bytesCrossInBothDirections() throws {
        let pair = try openPair()
        #expect(pair.client.send(from: .holding("ping"), countMax: 4) == .bytes(4))
        #expect(TLSPair.receive(pair.server).text == "ping")
        #expect(pair.server.send(from: .holding("pong and more"), countMax: 4) == .bytes(4))
        #expect(TLSPair.receive(pair.client) == ("pong", .wouldBlock))
    }

    @Test func anEmptiedSocketIsKnownToBeEmpty() throws {
        let pair = try openPair()
        _ = TLSPair.receive(pair.client)
        _ = pair.client.send(from: .holding("ping"), countMax: 4)
        let buffer = ByteBuffer(capacity: 65536)
        #expect(pair.server.receive(into: buffer) == .bytes(4))
        #expect(pair.server.isDrained, "another read would be in vain")
    }

    @Test func manySmallRecordsLeaveOthersTheirTurn() throws {
        let pair = try openPair()
        for _ in 0..<200 { _ = pair.client.send(from: .holding("x"), countMax: 1) }
        let buffer = ByteBuffer(capacity: 65536)
        #expect(pair.server.receive(into: buffer) == .bytes(64))
        #expect(!pair.server.isDrained, "there is more")
        while case .bytes = pair.server.receive(into: buffer) {}
        #expect(buffer.readableBytes == 200)
    }

    @Test func whatDoesNotFitWaitsInside() throws {
        let pair = try openPair()
        _ = pair.client.send(from: .holding("hello"), countMax: 5)
        let small = ByteBuffer(capacity: 3)
        #expect(pair.server.receive(into: small) == .bytes(3))
        #expect(!pair.server.isDrained, "the socket is quiet, the session is not")
        small.consume(3)
        #expect(pair.server.receive(into: small) == .bytes(2))
        #expect(small.text == "lo")
    }

    /// Else they would lie in the socket without another event.
    @Test func whatCameWhileBytesWaitedInsideIsReadToo() throws {
        let pair = try openPair()
        _ = pair.client.send(from: .holding("hello"), countMax: 5)
        let buffer = ByteBuffer(capacity: 3)
        #expect(pair.server.receive(into: buffer) == .bytes(3))
        _ = pair.client.send(from: .holding(" world"), countMax: 6)
        pair.server.socketBecameReadable()
        let rest = ByteBuffer(capacity: 100)
        #expect(pair.server.receive(into: rest) == .bytes(8))
        #expect(rest.text == "lo world")
        #expect(pair.server.isDrained)
    }

    @Test func headAndBodyShareARecord() throws {
        let pair = try openPair()
        let head = ByteBuffer.holding("head ")
        let body = ByteBuffer.holding("body and more")
        #expect(pair.server.send(from: head, then: body, countMax: 4) == .bytes(9))
        #expect(head.isEmpty)
        #expect(body.text == " and more")
        let buffer = ByteBuffer(capacity: 65536)
        _ = pair.client.receive(into: buffer)
        #expect(buffer.text == "head body")
    }

    @Test func aLongBodyBehindAHeadArrivesWhole() throws {
        let pair = try openPair()
        let body = ByteBuffer(capacity: 1 << 17)
        body.append(Self.pattern(100_000))
        #expect(pair.server.send(from: .holding("head"), then: body, countMax: 100_000) == .bytes(100_004))
        let received = ByteBuffer(capacity: 1 << 20)
        while received.readableBytes < 100_004, case .bytes = pair.client.receive(into: received) {}
        #expect(received.bytes == Array("head".utf8) + Self.pattern(100_000))
    }

    @Test func whatTheKernelRefusesWaitsAndGoesOn() throws {
        let pair = try openPair(roomBytes: 4096)
        let message = Self.pattern(300_000)
        let source = ByteBuffer(capacity: 1 << 19)
        source.append(message)
        let received = ByteBuffer(capacity: 1 << 19)
        var wasBlocked = false
        for _ in 0..<10_000 where !source.isEmpty || pair.server.hasBacklog {
            let result = source.isEmpty ? pair.server.flush() : pair.server.send(from: source, countMax: .max)
            if result == .wouldBlock {
                #expect(pair.server.hasBacklog)
                wasBlocked = true
                _ = pair.client.receive(into: received)
            }
        }
        while case .bytes = pair.client.receive(into: received) {}
        #expect(wasBlocked)
        #expect(received.bytes == message)
    }

    @Test func closeNotifyIsTheEnd() throws {
        let pair = try openPair()
        _ = pair.server.send(from: .holding("last"), countMax: 4)
        pair.server.finishSending()
        #expect(TLSPair.receive(pair.client) == ("last", .endOfStream))
        #expect(TLSPair.receive(pair.client).last == .endOfStream, "and stays the end")
        #expect(pair.client.send(from: .holding("still here"), countMax: 10) == .bytes(10), "the other half is open")
        #expect(TLSPair.receive(pair.server).text == "still here")
    }

    @Test func aCutIsNoEnd() throws {
        let pair = try openPair()
        _ = pair.server.send(from: .holding("last"), countMax: 4)
        pair.cutServer()
        #expect(TLSPair.receive(pair.client) == ("last", .failed(Errno(ECONNRESET))))
    }

    @Test func aCutIsAnEndWhereThatIsAccepted() throws {
        let pair = try openPair()
        pair.client.acceptBareEnd()
        _ = pair.server.send(from: .holding("last"), countMax: 4)
        pair.cutServer()
        #expect(TLSPair.receive(pair.client) == ("last", .endOfStream))
        #expect(TLSPair.receive(pair.client).last == .endOfStream, "and stays the end")
        #expect(pair.client.send(from: .holding("still here"), countMax: 10) == .bytes(10), "the other half is open")
        pair.client.finishSending()
        #expect(TLSPair.receive(pair.server) == ("still here", .endOfStream))
    }

    @Test func aResetSaysNoGoodbye() throws {
        let pair = try openPair()
        pair.server.close(isReset: true)
        pair.cutServer()
        #expect(TLSPair.receive(pair.client).last == .failed(Errno(ECONNRESET)))
    }

    /// The handshake and what follows, one byte at a time each way.
    @Test func fragmentsMakeNoDifference() throws {
        let near = TLSPair.pair()
        let far = TLSPair.pair()
        let server = try TLSPair.server("a").session(descriptor: near[0])
        let client = try TLSPair.client().session(
            descriptor: far[0], name: "a.test", isAddress: false, memory: SessionMemory())
        var outcomes = (TLSSession.HandshakeOutcome.wouldBlock, TLSSession.HandshakeOutcome.wouldBlock)
        let relayed = { (from: Int32, to: Int32) in
            var byte: UInt8 = 0
            guard unsafe read(from, &byte, 1) == 1 else { return }
            _ = unsafe write(to, &byte, 1)
        }
        for _ in 0..<20_000 where outcomes != (.done, .done) {
            if outcomes.0 == .wouldBlock { outcomes.0 = client.handshake() }
            if outcomes.1 == .wouldBlock { outcomes.1 = server.handshake() }
            relayed(near[1], far[1])
            relayed(far[1], near[1])
        }
        #expect(outcomes == (.done, .done))
        _ = client.send(from: .holding("ping"), countMax: 4)
        let buffer = ByteBuffer(capacity: 100)
        for _ in 0..<200 where buffer.isEmpty {
            relayed(far[1], near[1])
            let result = server.receive(into: buffer)
            #expect(result == .wouldBlock || result == .bytes(4))
        }
        #expect(buffer.text == "ping")
        server.close(isReset: false)
        client.close(isReset: false)
        for end in near + far { close(end) }
    }

    @Test func plainHTTPIsRecognised() throws {
        let ends = TLSPair.pair()
        let session = try TLSPair.server("a").session(descriptor: ends[0])
        let request = Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
        _ = unsafe write(ends[1], request, request.count)
        guard case .failed = session.handshake() else { return #expect(Bool(false), "no failure") }
        #expect(session.isPlainHTTP)
        session.close(isReset: true)
        for end in ends { close(end) }
    }

    @Test func anEndInTheHandshakeIsSaid() throws {
        let pair = TLSPair(try TLSPair.server("a"), try TLSPair.client())
        _ = pair.client.handshake()
        pair.cutServer()
        #expect(pair.client.handshake() == .failed("the peer closed the connection in the handshake"))
    }
}
