import Testing

@testable import Worker

/// A relay between two socket pairs whose far ends a test holds.
final class RelayStage {
    let source = ScriptedPeer()
    let sink: ScriptedPeer
    let buffers = BufferPool()
    var relay: BodyRelay

    /// - Parameters:
    ///   - head: Waits in the sink's output already.
    ///   - roomBytes: What the sink's kernel holds before it refuses more.
    init(_ relay: BodyRelay, head: String = "", roomBytes: Int32? = nil) {
        self.relay = relay
        sink = ScriptedPeer(roomBytes: roomBytes)
        sink.deliverEvents()
        if !head.isEmpty { sink.connection.outputBuffer(room: head.utf8.count, buffers).append(string: head) }
    }

    /// Hears of events, then moves what can be moved.
    func pump() -> BodyRelay.Outcome {
        source.deliverEvents()
        sink.deliverEvents()
        return relay.pump(from: source.connection, to: sink.connection, buffers)
    }

    /// The largest buffer in use.
    var bufferBytes: Int { max(source.connection.input?.capacity ?? 0, sink.connection.output?.capacity ?? 0) }
}

@Suite struct BodyRelayTests {
    private func stage(
        _ framing: BodyFraming, chunks: Bool = false, bytesMax: Int = 0, head: String = "", roomBytes: Int32? = nil
    ) -> RelayStage {
        RelayStage(
            BodyRelay(framing, writesChunks: chunks, bytesMax: bytesMax), head: head, roomBytes: roomBytes)
    }

    @Test func withoutABodyOnlyTheHeadGoesOut() {
        let stage = stage(.none, head: "HEAD")
        stage.source.send("the next message")
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "HEAD")
        #expect(stage.relay.isRead)
        #expect(stage.relay.bodyBytes == 0)
        #expect(stage.relay.sinkBytesTaken == 4)
        #expect(stage.relay.sourceBytesUsed == 0)
    }

    @Test func aLengthGoesOutAsItCame() {
        let stage = stage(.length(11), head: "HEAD|")
        stage.source.send("hello")
        #expect(stage.pump() == .needsInput)
        #expect(stage.sink.receivedText == "HEAD|hello")
        stage.source.send(" worldGET /next")
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == " world")
        #expect(stage.source.connection.input?.text == "GET /next")
    }

    @Test func chunksAreWrittenAnewWithoutTheirExtensions() {
        let stage = stage(.chunked, chunks: true)
        stage.source.send("5;secret=1\r\nhello\r\n0A\r\n, worlds!!\r\n0\r\n\r\nGET /next")
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "5\r\nhello\r\na\r\n, worlds!!\r\n0\r\n\r\n")
        #expect(stage.relay.bodyBytes == 15)
        #expect(stage.source.connection.input?.text == "GET /next")
    }

    @Test func trailersThatMayGoOnGoOn() {
        let stage = stage(.chunked, chunks: true)
        stage.source.send("1\r\nx\r\n0\r\nX-Sum: abc\r\nContent-Length: 5\r\nX-More: 1\r\n\r\n")
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "1\r\nx\r\n0\r\nX-Sum: abc\r\nX-More: 1\r\n\r\n")
    }

    @Test func chunksAreUnpackedForASinkThatKnowsNone() {
        let stage = stage(.chunked)
        stage.source.send("5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: abc\r\n\r\n")
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "hello world")
        #expect(stage.relay.bodyBytes == 11)
    }

    @Test func aBodyUntilCloseBecomesChunks() {
        let stage = stage(.untilClose, chunks: true)
        stage.source.send("hello")
        #expect(stage.pump() == .needsInput)
        #expect(stage.sink.receivedText == "5\r\nhello\r\n", "nothing is held back for the end")
        #expect(!stage.relay.isRead)
        stage.source.finish()
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "0\r\n\r\n")
        #expect(stage.relay.isRead)
    }

    @Test func aBodyUntilCloseGoesOutAsItCame() {
        let stage = stage(.untilClose)
        stage.source.send("hello")
        stage.source.finish()
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "hello")
    }

    @Test func anEmptyBodyUntilCloseIsABody() {
        let stage = stage(.untilClose, chunks: true)
        stage.source.finish()
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "0\r\n\r\n")
    }

    @Test func finishingTwiceWritesTheEndOnce() {
        let stage = stage(.chunked, chunks: true)
        stage.source.send("0\r\n\r\n")
        #expect(stage.pump() == .finished)
        #expect(stage.pump() == .finished)
        #expect(stage.sink.receivedText == "0\r\n\r\n")
    }

    @Test(arguments: [BodyFraming.length(10), .chunked])
    func aSourceThatEndsTooEarlyIsNeverACleanEnd(framing: BodyFraming) {
        for chunks in [true, false] where chunks || framing != .length(10) {
            let stage = stage(framing, chunks: chunks)
            stage.source.send("9\r\nhel")
            stage.source.finish()
            #expect(stage.pump() == .sourceEnded)
            #expect(!stage.sink.receivedText.hasSuffix("0\r\n\r\n"))
            #expect(!stage.relay.isRead)
        }
    }

    @Test func aSourceThatEndsInItsTrailersEndsTooEarly() {
        let stage = stage(.chunked, chunks: true)
        stage.source.send("1\r\nx\r\n0\r\nX-Sum: 1\r\n")
        stage.source.finish()
        #expect(stage.pump() == .sourceEnded)
        #expect(stage.sink.receivedText == "1\r\nx\r\n")
    }

    @Test(arguments: [BodyFraming.length(10), .chunked, .untilClose])
    func aSourceThatIsResetFails(framing: BodyFraming) {
        let stage = stage(framing, chunks: true)
        stage.source.connection.output = ByteBuffer.holding("unread by the source")
        _ = stage.source.connection.flush(stage.buffers)
        stage.source.close()
        guard case .sourceFailed = stage.pump() else { return #expect(Bool(false), "no failure") }
        #expect(!stage.sink.receivedText.hasSuffix("0\r\n\r\n"))
    }

    @Test(arguments: [true, false])
    func aSinkThatIsGoneFails(chunks: Bool) {
        let stage = stage(.untilClose, chunks: chunks)
        stage.sink.close()
        stage.source.send("hello")
        guard case .sinkFailed = stage.pump() else { return #expect(Bool(false), "no failure") }
    }

    @Test(arguments: ["x\r\n", "5\nhello", "5\r\nhelloX", "0\r\nX-Sum : 1\r\n\r\n", "0\r\nno colon\r\n\r\n"])
    func brokenChunksAreMalformed(text: String) {
        for chunks in [true, false] {
            let stage = stage(.chunked, chunks: chunks)
            stage.source.send(text)
            #expect(stage.pump() == .malformed)
            #expect(!stage.sink.receivedText.hasSuffix("0\r\n\r\n"))
        }
    }

    @Test(arguments: [
        (BodyFraming.chunked, true), (.chunked, false), (.length(6), false), (.untilClose, true), (.untilClose, false),
    ])
    func moreThanTheLimitIsTooLarge(framing: BodyFraming, chunks: Bool) {
        let stage = stage(framing, chunks: chunks, bytesMax: 5)
        stage.source.send(framing == .chunked ? "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n" : "abcdef")
        #expect(stage.pump() == .tooLarge)
        #expect(stage.relay.bodyBytes <= 5)
    }

    @Test(arguments: [(BodyFraming.chunked, true), (.chunked, false), (.length(5), false)])
    func theLimitItselfIsAllowed(framing: BodyFraming, chunks: Bool) {
        let stage = stage(framing, chunks: chunks, bytesMax: 5)
        stage.source.send(framing == .chunked ? "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" : "abcde")
        #expect(stage.pump() == .finished)
        #expect(stage.relay.bodyBytes == 5)
    }

    @Test func oneBodyDoesNotKeepTheWorkerForItself() {
        // Packets, so that each read takes one of them however much room it has; the end that is announced
        // with them keeps short reads from ending the turn.
        let source = ScriptedPeer(keepsPackets: true)
        let sink = ScriptedPeer()
        let relay = BodyRelay(.untilClose, writesChunks: false)
        for _ in 0..<40 { source.send("x") }
        source.finish()
        source.deliverEvents()
        var outcomes: [BodyRelay.Outcome] = []
        for _ in 0..<3 { outcomes.append(relay.pump(from: source.connection, to: sink.connection, BufferPool())) }
        #expect(outcomes == [.yielded, .yielded, .finished])
        #expect(sink.receive().count == 40)
    }

    @Test func aBodyThatIsKeptIsNotCopiedWithEveryPiece() {
        let source = ScriptedPeer()
        let sink = ScriptedPeer()
        let pool = BufferPool()
        let relay = BodyRelay(.untilClose, writesChunks: false)
        relay.keep(bytesMax: 5_000_000, pool)
        var capacities: Set<Int> = []
        var sent = 0
        while sent + 50_000 <= 5_000_000 {
            sent += source.send([UInt8](repeating: 1, count: 50_000))
            source.deliverEvents()
            _ = relay.pump(from: source.connection, to: sink.connection, pool)
            _ = sink.receive()
            sink.deliverEvents()
            if let kept = relay.kept { capacities.insert(kept.capacity) }
        }
        #expect(relay.isSourceKept && relay.sourceBytesUsed > 4_900_000)
        #expect(capacities.count < 10)
        #expect(capacities.max() == 5_000_000, "no more room than may ever be used")
    }

    @Test(arguments: [(BodyFraming.untilClose, false), (.untilClose, true), (.chunked, true), (.chunked, false)])
    func aSinkThatDoesNotReadStopsTheSource(framing: BodyFraming, chunks: Bool) {
        let stage = stage(framing, chunks: chunks, roomBytes: 8192)
        if framing == .chunked { stage.source.send("7fffffff\r\n") }
        var sent = 0
        for turn in 0..<200 {
            sent += stage.source.send([UInt8](repeating: UInt8(turn & 0x7F), count: 50_000))
            let outcome = stage.pump()
            #expect(outcome == .sinkBlocked || outcome == .needsInput)
            #expect(stage.bufferBytes <= BufferPool.Size.large.rawValue)
        }
        #expect(stage.pump() == .sinkBlocked)
        #expect(stage.relay.sourceBytesUsed < 300_000)
        #expect(sent < 1_500_000, "the kernel's flow control never reached the source")
    }

    @Test func wholeBodiesAreWrittenLikeStreamedOnes() {
        let chunked = Array("3\r\nabc\r\n2;x\r\nde\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n".utf8)
        let output = ByteBuffer(capacity: 1000)
        BodyRelay.writeWhole(chunked.span, .chunked, to: output)
        #expect(output.text == "3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
        output.reset()
        BodyRelay.writeWhole(Array("abcde".utf8).span, .length(5), to: output)
        #expect(output.text == "abcde")
    }

    @Test func whatIsThereOfABodyIsTold() {
        func presence(_ text: String, _ framing: BodyFraming) -> BodyRelay.Presence {
            BodyRelay.presence(Array(text.utf8).span, framing)
        }
        #expect(presence("abcdeGET", .length(5)) == .whole(bytes: 5, data: 5))
        #expect(presence("abcd", .length(5)) == .partial)
        #expect(presence("", .none) == .whole(bytes: 0, data: 0))
        #expect(presence("1\r\nx\r\n0\r\n\r\nGET", .chunked) == .whole(bytes: 11, data: 1))
        #expect(presence("1\r\nx\r\n0\r\n", .chunked) == .partial)
        #expect(presence("1\r\nxx\r\n", .chunked) == .malformed)
        #expect(presence("anything", .untilClose) == .partial)
    }

    /// Bodies in every framing to every kind of sink, in pieces of any size, while the sink reads when it
    /// likes: what arrives is exactly the body, and no buffer grows beyond its bound.
    @Test(arguments: WireBody.Coding.allCases, 0..<12 as Range<UInt64>)
    func everyBodyArrivesWholeAndOnce(coding: WireBody.Coding, seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let body = WireBody(coding, &random)
        for chunks in coding == .length ? [false] : [true, false] {
            let stage = stage(body.framing, chunks: chunks, head: "HEAD|", roomBytes: 8192)
            let received = try #require(WireBody.transfer(body, stage, &random), "it stopped on the way")
            let head = received.prefix(5)
            #expect(String(decoding: head, as: UTF8.self) == "HEAD|")
            let arrived = chunks ? WireBody.unchunked(received.dropFirst(5)) : Array(received.dropFirst(5))
            #expect(arrived == body.data)
            #expect(stage.relay.bodyBytes == body.data.count)
            #expect(stage.relay.sinkBytesTaken == received.count)
            #expect(stage.relay.sourceBytesUsed == body.wire.count)
            #expect(stage.sink.connection.output == nil)
            #expect(stage.leftBytes == body.next)
        }
    }
}

extension RelayStage {
    /// What of the source's bytes nobody has used.
    fileprivate var leftBytes: [UInt8] {
        source.deliverEvents()
        while case .bytes = source.connection.receive(buffers) {}
        return source.connection.input?.bytes ?? []
    }
}

/// A random body, as it travels, and the message behind it.
struct WireBody {
    enum Coding: CaseIterable, Sendable { case length, chunked, untilClose }

    let data: [UInt8]
    let framing: BodyFraming
    let wire: [UInt8]
    /// Belongs to the next message.
    let next: [UInt8]

    init(_ coding: Coding, _ random: inout SplitMix64) {
        let limit = [0, 1, 40, 5000, 20_000, 300_000].randomElement(using: &random)!
        let count = Int.random(in: 0...limit, using: &random)
        data = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
        switch coding {
        case .length: framing = .length(count)
        case .chunked: framing = .chunked
        case .untilClose: framing = .untilClose
        }
        wire = coding == .chunked ? Self.chunked(data, &random) : data
        next = coding == .untilClose || Bool.random(using: &random) ? [] : Array("GET /next HTTP/1.1\r\n".utf8)
    }

    private static func chunked(_ data: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
        var wire: [UInt8] = []
        var rest = data[...]
        while !rest.isEmpty {
            let piece = rest.prefix(
                Int.random(in: 1...[1, 17, 4000, 70_000].randomElement(using: &random)!, using: &random))
            let size = String(piece.count, radix: 16, uppercase: Bool.random(using: &random))
            wire +=
                "\(Bool.random(using: &random) ? "0" : "")\(size)\(Bool.random(using: &random) ? ";x=\"y\"" : "")\r\n"
                .utf8
            wire += piece + [0x0D, 0x0A]
            rest = rest.dropFirst(piece.count)
        }
        return wire + "0\r\n\(Bool.random(using: &random) ? "X-Sum: 1\r\n" : "")\r\n".utf8
    }

    /// Takes chunks apart in the plainest way there is; nil when they are no chunks.
    static func unchunked(_ wire: ArraySlice<UInt8>) -> [UInt8]? {
        var rest = wire
        var data: [UInt8] = []
        while let end = rest.firstIndex(of: 0x0D) {
            guard let size = Int(String(decoding: rest[..<end], as: UTF8.self), radix: 16) else { return nil }
            rest = rest[(end + 2)...]
            if size == 0 { return rest.suffix(2) == [0x0D, 0x0A] ? data : nil }
            guard rest.count >= size + 2 else { return nil }
            data += rest.prefix(size)
            rest = rest.dropFirst(size + 2)
        }
        return nil
    }

    /// Sends, reads and pumps in a random order until the body is over.
    /// - Returns: What the sink's peer received; nil when it never ended or a buffer grew too large.
    static func transfer(_ body: WireBody, _ stage: RelayStage, _ random: inout SplitMix64) -> [UInt8]? {
        var rest = (body.wire + body.next)[...]
        var received: [UInt8] = []
        var hasEnded = false
        for _ in 0..<20_000 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                let most = [1, 100, 9000, 100_000].randomElement(using: &random)!
                rest = rest.dropFirst(stage.source.send(rest.prefix(Int.random(in: 1...most, using: &random))))
                if rest.isEmpty, body.framing == .untilClose, !hasEnded {
                    hasEnded = true
                    stage.source.finish()
                }
            case 1:
                received += stage.sink.receive(countMax: Int.random(in: 1...20_000, using: &random))
            default:
                switch stage.pump() {
                case .finished:
                    stage.source.send(rest)
                    return received + stage.sink.receive()
                case .needsInput, .sinkBlocked, .yielded: break
                case .sourceEnded, .sourceFailed, .sinkFailed, .malformed, .tooLarge: return nil
                }
            }
            guard stage.bufferBytes <= BufferPool.Size.large.rawValue else { return nil }
        }
        return nil
    }
}
