import Testing

@testable import Worker

/// Objects of streams are used again: nothing of one stream may be left for the next, nor reach it.
@Suite struct StreamReuseTests {
    private let pair = SessionPair()

    /// Every stored property by its name, those of superclasses too, so that one which is added later is looked at.
    private static func facts(_ object: Any) -> [String] {
        var facts: [String] = []
        var mirror: Mirror? = Mirror(reflecting: object)
        while let level = mirror {
            facts += level.children.map { "\($0.label ?? "?"): \($0.value)" }
            mirror = level.superclassMirror
        }
        return facts
    }

    private static let new = facts(HTTP2Stream())

    private static func upload(_ framing: String, _ body: String = "") -> String {
        "POST /up HTTP/1.1\r\nHost: a.test\r\nX-Long: \(String(repeating: "a", count: 20_000))\r\n"
            + "\(framing)\r\n\r\n\(body)"
    }

    /// Streams in many states, and which of their properties were ever other than those of a new one.
    private final class Uses {
        private(set) var streams: [HTTP2Stream] = []
        private(set) var changed: Set<String> = []

        func note(_ stream: HTTP2Stream) {
            streams.append(stream)
            for (fact, usual) in zip(facts(stream), new) where fact != usual { changed.insert(usual) }
        }
    }

    private func use() -> Uses {
        let uses = Uses()
        let own = pair.request(Self.upload("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"))
        let incoming = pair.arrived[0]
        uses.note(incoming)
        _ = pair.text(incoming)
        pair.send("HTTP/1.1 103 Early Hints\r\n\r\n", on: incoming)
        let large = String(repeating: "x", count: 100_000)
        let answer = ByteBuffer(capacity: 200_000)
        answer.append(string: "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n\(large)")
        _ = incoming.send(from: answer, countMax: answer.readableBytes)
        uses.note(incoming)
        pair.exchange()
        uses.note(incoming)
        _ = pair.text(own)
        uses.note(own)
        let other = pair.request(Self.upload("Content-Length: 9", "hello"))
        uses.note(other)
        let reset = pair.arrived[1]
        pair.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n", on: reset)
        uses.note(reset)
        reset.close(isReset: false)
        uses.note(reset)
        _ = incoming.send(from: answer, countMax: answer.readableBytes)
        incoming.dropOutbound()
        other.close(isReset: true)
        own.close(isReset: true)
        pair.exchange()
        for stream in [own, incoming, other, reset] {
            #expect(stream.isClosed, "its session has forgotten it")
            uses.note(stream)
            spoil(stream)
            uses.note(stream)
        }
        return uses
    }

    /// What can be set from outside.
    private func spoil(_ stream: HTTP2Stream) {
        stream.news.hasDrained = true
        stream.holdsLittle()
        stream.holds(behind: 2048, ofRequest: true)
        stream.holds(behind: 2048, ofRequest: false)
        (stream.isInTouched, stream.isInSending, stream.isWaitingForRest) = (true, true, true)
        stream.holdEnd()
        (stream.isDiscarding, stream.discardStartNs, stream.discardedBytes) = (true, 1, 2)
        stream.discardProgressNs = 3
        (stream.method, stream.isExtendedConnect, stream.opensTunnel) = (.post, true, true)
        (stream.webSocketKey, stream.refusal) = ([1], .protocolError)
        (stream.wasResetByPeer, stream.isResetting, stream.wasResetHere) = (true, true, true)
        (stream.isDrained, stream.receiveAwaitsWritable, stream.sendAwaitsReadable) = (true, true, true)
        stream.downstream = DownstreamConnection(descriptor: -1, slot: 0, generation: 0, peer: TracerStage.peer)
        stream.upstream = UpstreamConnection(
            descriptor: -1, slot: 1, generation: 1, endpoint: TracerStage().endpoints[0], number: 7, address: 0,
            isConnecting: false)
    }

    @Test func aResetStreamIsLikeANewOne() {
        for stream in use().streams {
            stream.reset()
            #expect(Self.facts(stream) == Self.new)
        }
        #expect(pair.client.context.heldBytes == 0)
        #expect(pair.server.context.heldBytes == 0)
    }

    /// A property that is added later has to be changed by `use`, too, so that `reset` cannot forget it unnoticed.
    @Test func everyPropertyIsChangedByTheTest() {
        let unchanged = Set(Self.new).subtracting(use().changed).filter { !$0.hasPrefix("inbound:") }
        #expect(unchanged.sorted() == [])
    }

    @Test func onlyAnObjectOfNobodyIsKept() {
        let list = ReuseList<HTTP2Stream>(countMax: 1)
        let streams = ObjectList<HTTP2Stream>()
        for _ in 0..<3 { streams.append(HTTP2Stream()) }
        let known = streams[2]
        // Not inside of what is expected, which would refer to them.
        let keepsKnown = list.keep(streams.popLast()!)
        #expect(!keepsKnown)
        #expect(known.id == 0)
        let keepsUnknown = list.keep(streams.popLast()!)
        #expect(keepsUnknown)
        let keepsTooMany = list.keep(streams.popLast()!)
        #expect(!keepsTooMany)
        #expect(list.take() != nil)
        #expect(list.take() == nil)
    }

    /// What a peer still sends on a stream that is over finds nobody, whoever has the object now.
    @Test func framesForAStreamThatIsOverDoNotReachTheNextOne() {
        let old = ObjectList<HTTP2Stream>()
        answer("GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n", old)
        let id = Int(old[0].id)
        pair.letGo()
        let free = pair.server.context.freeStreams
        let isKept = free.keep(old.popLast()!)
        #expect(isKept)
        _ = pair.request("GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n")
        #expect(free.count == 0, "the object is in use again")
        let next = pair.arrived[0]
        let before = Self.facts(next)
        for frame in [
            RawFrames.frame(.windowUpdate, stream: id, RawFrames.number(9)),
            RawFrames.frame(.reset, stream: id, RawFrames.number(8)),
        ] {
            pair.server.receive(frame.span)
        }
        #expect(Self.facts(next) == before)
        #expect(pair.server.nextTouched() == nil)
        #expect(pair.text(next).hasPrefix("GET /next "))
    }

    /// A whole exchange; the server's stream goes into a list.
    private func answer(_ request: String, _ list: ObjectList<HTTP2Stream>) {
        let own = pair.request(request)
        let incoming = pair.arrived[0]
        _ = pair.text(incoming)
        pair.send("HTTP/1.1 204 No Content\r\n\r\n", on: incoming)
        own.close(isReset: false)
        incoming.close(isReset: false)
        pair.exchange()
        #expect(incoming.isClosed && incoming.isAbandoned)
        list.append(incoming)
    }

    @Test func aResetClientsConnectionIsLikeANewOne() {
        let stream = HTTP2Stream()
        let used = DownstreamConnection(stream, slot: 3, generation: 4, peer: TracerStage.peer)
        used.phase = .lingering
        used.isSecure = true
        used.certificateLines = [1]
        (used.requestCount, used.headStartedNs, used.lingeredBytes, used.drainStep) = (1, 2, 3, .refusing)
        spoil(used)
        used.reset()
        used.begin(stream, slot: 8, generation: 9, peer: TracerStage.peer)
        let new = DownstreamConnection(stream, slot: 8, generation: 9, peer: TracerStage.peer)
        #expect(Self.facts(used) == Self.facts(new))
    }

    @Test func aResetBackendsConnectionIsLikeANewOne() {
        let stream = HTTP2Stream()
        let endpoint = TracerStage().endpoints[0]
        let carrier = UpstreamConnection(
            descriptor: -1, slot: 1, generation: 1, endpoint: endpoint, number: 7, address: 0, isConnecting: false)
        let used = UpstreamConnection(stream, on: carrier, slot: 3, generation: 4)
        (used.isConnecting, used.isHandshaking, used.isMaking, used.isIdle) = (true, true, true, true)
        (used.mustBeHTTP1, used.isLossBlamed, used.isCongested, used.isLingering) = (true, true, true, true)
        (used.requestCount, used.readyAtNs, used.idleSinceNs) = (1, 2, 3)
        (used.settingsSeen, used.pingsSeen) = (4, 5)
        used.history = ConnectionHistory(number: 1, startedNs: 2, startedUnixNs: 3)
        spoil(used)
        used.reset()
        used.begin(stream, on: carrier, slot: 8, generation: 9)
        let new = UpstreamConnection(stream, on: carrier, slot: 8, generation: 9)
        #expect(Self.facts(used) == Self.facts(new))
    }

    /// What all connections have, as far as it can be changed, and its end.
    private func spoil(_ connection: Connection) {
        connection.resetOnClose()
        (connection.isReadable, connection.isWritable, connection.peerFinished) = (true, false, true)
        connection.sawEnd = true
        connection.deadline.kind = 1
        (connection.deadline.atNs, connection.deadline.wakeUpNs) = (2, 1)
        connection.transport = nil
        connection.close(BufferPool())
    }
}
