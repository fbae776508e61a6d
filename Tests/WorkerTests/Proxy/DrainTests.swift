import Glibc
import ShmRing
import Testing

@testable import Worker

@Suite struct DrainTests {
    private let backend = LocalListener()
    private static let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    private func request(_ target: String) -> String { "GET \(target) HTTP/1.1\r\nHost: h\r\n\r\n" }

    /// The backend's end of the next connection, with a request on it.
    private func backendGets(_ target: String, from stage: WorkerStage) throws -> LocalPeer {
        try #require(stage.peer(of: backend, receives: "GET \(target) "))
    }

    /// A client that has been served once and waits.
    private func idleClient(_ stage: WorkerStage) throws -> LocalPeer {
        let client = stage.client()
        client.send(request("/first"))
        let server = try backendGets("/first", from: stage)
        server.send(Self.answer)
        #expect(stage.turns { client.hasReceived("ok") })
        client.forget()
        return client
    }

    // MARK: Without a successor

    @Test func anIdleConnectionIsClosedAfterAMoment() throws {
        let stage = WorkerStage(backend: backend, drainNs: 30_000_000)
        let client = try idleClient(stage)
        stage.master.send(.drain)
        #expect(stage.turns { client.hasEnded })
        #expect(!client.isReset)
        #expect(client.received.isEmpty)
        #expect(stage.proxy.drainIsDone())
    }

    @Test func aRequestThatCrossesTheDrainIsAnsweredAndToldToClose() throws {
        let stage = WorkerStage(backend: backend)
        let client = try idleClient(stage)
        stage.master.send(.drain)
        stage.settle()
        #expect(stage.proxy.isDraining)
        #expect(!client.hasEnded)
        client.send(request("/crossing"))
        try backendGets("/crossing", from: stage).send(Self.answer)
        #expect(stage.turns { client.hasEnded })
        #expect(client.received.hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(client.received.contains("Connection: close\r\n"))
        #expect(client.received.hasSuffix("ok"))
    }

    @Test func aHeadThatIsArrivingIsWaitedFor() throws {
        let stage = WorkerStage(backend: backend)
        let client = stage.client()
        client.send("GET /slow HTTP/1.1\r\nHo")
        stage.settle()
        stage.master.send(.drain)
        stage.settle()
        client.send("st: h\r\n\r\n")
        try backendGets("/slow", from: stage).send(Self.answer)
        #expect(stage.turns { client.hasEnded })
        #expect(client.received.contains("Connection: close\r\n"))
        #expect(client.received.hasSuffix("ok"))
    }

    @Test func pipelinedRequestsThatWereReadAreAllAnswered() throws {
        let stage = WorkerStage(backend: backend)
        let client = stage.client()
        client.send(request("/1") + request("/2") + request("/3"))
        let first = try backendGets("/1", from: stage)
        stage.master.send(.drain)
        stage.settle()
        first.send(Self.answer)
        try backendGets("/2", from: stage).send(Self.answer)
        try backendGets("/3", from: stage).send(Self.answer)
        #expect(stage.turns { client.hasEnded })
        let answers = client.received.split(separator: "ok")
        #expect(answers.map { $0.contains("Connection: close") } == [false, false, true])
    }

    @Test func nothingIsAcceptedAnyMore() throws {
        let stage = WorkerStage(backend: backend)
        stage.master.send(.drain)
        stage.settle()
        let late = stage.client()
        late.send(request("/late"))
        stage.settle()
        #expect(backend.accept() == nil)
        #expect(!late.hasEnded, "it waits in the listener's queue, for whoever accepts there next")
        #expect(stage.proxy.drainIsDone())
    }

    @Test func sweepingEmptiesTheQueueAndServesOneRequestEach() throws {
        let stage = WorkerStage(backend: backend)
        let waiting = [stage.client(), stage.client()]
        stage.master.send(.drainSweeping)
        stage.settle()
        #expect(!stage.proxy.drainIsDone())
        for (index, client) in waiting.enumerated() {
            client.send(request("/\(index)"))
            try backendGets("/\(index)", from: stage).send(Self.answer)
            #expect(stage.turns { client.hasEnded })
            #expect(client.received.contains("Connection: close\r\n"))
        }
        #expect(stage.turns { !stage.proxy.admitsClients && stage.proxy.drainIsDone() })
        #expect(!stage.proxy.isAccepting)
    }

    @Test func theSweepEndsWhenTheMasterSaysThatNobodyIsOnTheWay() throws {
        let stage = WorkerStage(backend: backend)
        stage.master.send(.drainSweeping)
        stage.settle()
        #expect(!stage.proxy.drainIsDone())
        stage.master.send(.sweepOver)
        stage.settle()
        #expect(!stage.proxy.admitsClients && stage.proxy.drainIsDone())
    }

    @Test func whatIsInTheQueueAtTheEndOfTheSweepIsServed() throws {
        let stage = WorkerStage(backend: backend)
        stage.settle()
        stage.proxy.startDrain(.sweeping)
        let waiting = (0..<100).map { _ in stage.client() }
        stage.proxy.finishSweep()
        #expect(!stage.proxy.admitsClients)
        #expect(stage.proxy.downstreams.count == waiting.count, "more than one turn accepts")
        waiting[99].send(request("/last"))
        try backendGets("/last", from: stage).send(Self.answer)
        #expect(stage.turns { waiting[99].hasEnded })
        #expect(waiting[99].received.hasSuffix("ok"))
    }

    @Test func aQueueThatDoesNotFitKeepsItsTime() throws {
        let stage = WorkerStage(backend: backend, adjust: { $0.limits.connectionsMax = 1 })
        stage.settle()
        let first = stage.client()
        let second = stage.client()
        stage.proxy.startDrain(.sweeping)
        stage.proxy.finishSweep()
        #expect(stage.proxy.admitsClients && stage.proxy.downstreams.count == 1)
        first.close()
        second.send(request("/second"))
        try backendGets("/second", from: stage).send(Self.answer)
        #expect(stage.turns { second.hasEnded })
        #expect(second.received.hasSuffix("ok"))
    }

    @Test func whatRanWhenTheDrainBeganSaysSoInItsTrace() throws {
        let segment = try SpanSegment(ringCount: 1, ringBytesMin: 0, generation: 1, masterPID: 1)
        let stage = WorkerStage(backend: backend, segment: segment)
        let client = try idleClient(stage)
        let busy = stage.client()
        busy.send(request("/busy"))
        let server = try backendGets("/busy", from: stage)
        stage.master.send(.drain)
        stage.settle()
        server.send(Self.answer)
        #expect(stage.turns { busy.hasEnded })
        client.send(request("/after"))
        try backendGets("/after", from: stage).send(Self.answer)
        #expect(stage.turns { client.hasEnded })
        var consumer = segment.consumer()
        var told: [Bool] = []
        while let (picture, _) = consumer.next(slot: 0, { TracePicture($0) }) {
            guard let picture, picture.spans[0].name == "proxy_request" else { continue }
            told.append(picture.lines.contains { $0.hasPrefix("! drain_started at") })
        }
        #expect(told == [false, true, false])
    }

    @Test func leftoversAreCountedByWhatTheyDo() throws {
        let stage = WorkerStage(backend: backend)
        let idle = stage.client()
        let arriving = stage.client()
        arriving.send("GET / HT")
        let served = stage.client()
        served.send(request("/served"))
        _ = try backendGets("/served", from: stage)
        let left = DrainLeftovers(stage.proxy.downstreams.occupants)
        #expect(left.idle == 1 && left.readingHead == 1 && left.serving == 1 && left.tunnels == 0 && left.closing == 0)
        #expect(left.metadata["connections"] == "3")
        stage.proxy.startDrain()
        stage.proxy.abandonEverything()
        let ended = [idle, arriving, served].map { $0.hasEnded }
        #expect(ended == [true, true, true])
    }

    // MARK: With a successor

    @Test func anIdleConnectionGoesOnAtTheSuccessor() throws {
        let (old, new) = try pair()
        let client = try idleClient(old.stage)
        old.drain()
        old.stage.settle()
        #expect(old.stage.proxy.drainIsDone())
        #expect(new.turns { new.proxy.downstreams.count == 1 })
        client.send(request("/second"))
        try backendGets("/second", from: new).send(Self.answer)
        #expect(new.turns { client.hasReceived("ok") })
        #expect(!client.received.contains("Connection: close"))
        #expect(!client.hasEnded)
    }

    @Test func aConnectionWithATransportStays() throws {
        let (old, new) = try pair()
        let client = old.stage.client()
        #expect(old.stage.turns { old.stage.proxy.downstreams.count == 1 })
        old.stage.proxy.downstreams.occupants.first?.transport = ScriptedTransport()
        old.drain()
        old.stage.settle()
        new.settle()
        #expect(new.proxy.downstreams.count == 0)
        #expect(!client.hasEnded)
    }

    @Test func bytesThatNobodyHasReadGoAlong() throws {
        let (old, new) = try pair()
        let client = try idleClient(old.stage)
        client.send(request("/unread"))
        old.stage.proxy.startDrain(successor: old.takeWriteEnd())
        #expect(old.stage.proxy.downstreams.count == 0)
        try backendGets("/unread", from: new).send(Self.answer)
        #expect(new.turns { client.hasReceived("ok") })
    }

    @Test func aRequestInFlightIsAnsweredHereAndItsConnectionGoesOnThere() throws {
        let (old, new) = try pair()
        let client = old.stage.client()
        client.send(request("/here"))
        let server = try backendGets("/here", from: old.stage)
        old.drain()
        old.stage.settle()
        server.send(Self.answer)
        #expect(old.stage.turns { client.hasReceived("ok") })
        #expect(!client.received.contains("Connection: close"))
        client.forget()
        client.send(request("/there"))
        try backendGets("/there", from: new).send(Self.answer)
        #expect(new.turns { client.hasReceived("ok") })
        #expect(old.stage.proxy.drainIsDone())
    }

    @Test func aConnectionWithHalfAHeadStaysUntilItsAnswer() throws {
        let (old, new) = try pair()
        let client = old.stage.client()
        client.send("GET /half HTTP/1.1\r\n")
        old.stage.settle()
        old.drain()
        old.stage.settle()
        new.settle()
        #expect(new.proxy.downstreams.count == 0)
        client.send("Host: h\r\n\r\n")
        try backendGets("/half", from: old.stage).send(Self.answer)
        #expect(old.stage.turns { client.hasReceived("ok") })
        #expect(new.turns { new.proxy.downstreams.count == 1 })
        #expect(!client.hasEnded)
    }

    @Test func whatTheInboxDoesNotTakeAtOnceFollowsWhenThereIsRoom() throws {
        let (old, new) = try pair()
        let clients = (0..<400).map { _ in old.stage.client() }
        #expect(old.stage.turns { old.stage.proxy.downstreams.count == clients.count })
        old.drain()
        old.stage.settle()
        let left = old.stage.proxy.downstreams.count
        #expect(left > 0 && left < clients.count, "the inbox is full before everything is in it")
        #expect(
            new.turns {
                old.stage.settle()
                return new.proxy.downstreams.count == clients.count
            })
        #expect(old.stage.proxy.downstreams.count == 0)
        let ended = clients.filter { $0.hasEnded }.count
        #expect(ended == 0)
    }

    @Test func aSuccessorThatIsGoneIsNoSuccessor() throws {
        let ends = try ConnectionInbox.makePair()
        let stage = WorkerStage(backend: backend)
        let client = try idleClient(stage)
        close(ends.read)
        stage.proxy.startDrain(successor: FileDescriptor(owning: ends.write))
        client.send(request("/crossing"))
        try backendGets("/crossing", from: stage).send(Self.answer)
        #expect(stage.turns { client.hasEnded })
        #expect(client.received.contains("Connection: close\r\n"))
    }

    @Test func aFullTableLeavesTheRestInTheInbox() throws {
        let (old, new) = try pair { $0.limits.connectionsMax = 1 }
        let clients = [old.stage.client(), old.stage.client()]
        #expect(old.stage.turns { old.stage.proxy.downstreams.count == 2 })
        old.drain()
        old.stage.settle()
        new.settle()
        #expect(new.proxy.downstreams.count == 1)
        let ended = clients.filter { $0.hasEnded }.count
        #expect(ended == 0)
        clients[0].close()
        #expect(
            new.turns {
                new.proxy.downstreams.count == 0 || new.proxy.downstreams.count == 1 && !new.proxy.isReadingInbox
            })
        clients[1].send(request("/second"))
        try backendGets("/second", from: new).send(Self.answer)
        #expect(new.turns { clients[1].hasReceived("ok") })
    }

    @Test func whatWasHandedOverLastIsServedByAWorkerThatDrainsItself() throws {
        let (old, new) = try pair()
        let client = try idleClient(old.stage)
        old.drain()
        old.stage.settle()
        new.proxy.startDrain()
        #expect(!new.proxy.drainIsDone(), "it took what waited in its inbox")
        client.send(request("/second"))
        try backendGets("/second", from: new).send(Self.answer)
        #expect(new.turns { client.hasEnded })
        #expect(client.received.contains("Connection: close\r\n"))
    }

    // MARK: Two workers

    private final class Leaving {
        let stage: WorkerStage
        private var writeEnd: Int32

        init(_ stage: WorkerStage, writeEnd: Int32) {
            self.stage = stage
            self.writeEnd = writeEnd
        }

        deinit {
            if writeEnd >= 0 { close(writeEnd) }
        }

        func takeWriteEnd() -> FileDescriptor {
            defer { writeEnd = -1 }
            return FileDescriptor(owning: writeEnd)
        }

        /// As the master does it.
        func drain() {
            let writeEnd = takeWriteEnd()
            stage.master.send(.drain, passing: writeEnd.rawValue)
        }
    }

    private func pair(
        adjust: (inout WorkerConfiguration) -> Void = { _ in }
    ) throws -> (old: Leaving, new: WorkerStage) {
        let ends = try ConnectionInbox.makePair()
        let new = WorkerStage(backend: backend, inbox: ends.read, adjust: adjust)
        return (Leaving(WorkerStage(backend: backend), writeEnd: ends.write), new)
    }
}
