import Testing

@testable import Worker

/// Ends that wait for room in the socket.
@Suite struct ClosingTests {
    private let backend = LocalListener()
    private static let writable = Readiness(
        isReadable: false, isWritable: true, peerFinished: false, isBroken: false, hasError: false)

    /// A client's connection whose transport has something that the socket does not take.
    private func fullConnection(_ stage: WorkerStage, _ transport: ScriptedTransport) throws -> DownstreamConnection {
        #expect(stage.turns { stage.proxy.downstreams.count == 1 })
        let connection = try #require(stage.proxy.downstreams.occupants.first)
        connection.transport = transport
        transport.isOpen = false
        _ = transport.send(from: .holding("close_notify"), countMax: 12)
        return connection
    }

    private func makeRoom(_ stage: WorkerStage, _ connection: DownstreamConnection, _ transport: ScriptedTransport) {
        transport.isOpen = true
        connection.noticed(Self.writable)
        stage.proxy.downstreamEvent(connection, Self.writable)
    }

    @Test func theLastWordIsWaitedFor() throws {
        let stage = WorkerStage(backend: backend)
        let client = stage.client()
        let transport = ScriptedTransport()
        let connection = try fullConnection(stage, transport)
        stage.proxy.closeInOrder(connection)
        #expect(transport.hasFinished)
        #expect(connection.phase == .lingering && !client.hasEnded)
        makeRoom(stage, connection, transport)
        #expect(transport.sentText == "close_notify")
        #expect(stage.turns { client.hasEnded })
        #expect(!client.isReset)
        client.close()
        #expect(stage.proxy.downstreamDeadlines.armed(connection) == .linger)
    }

    @Test func aClientThatHasEndedIsWaitedForToo() throws {
        let stage = WorkerStage(backend: backend)
        let client = stage.client()
        let transport = ScriptedTransport()
        let connection = try fullConnection(stage, transport)
        connection.sawEnd = true
        stage.proxy.startLinger(connection)
        #expect(!connection.isClosed)
        makeRoom(stage, connection, transport)
        #expect(connection.isClosed && transport.wasReset == false)
        #expect(client.hasEnded)
    }

    @Test func whereThereIsRoomNothingIsWaitedFor() throws {
        let stage = WorkerStage(backend: backend)
        let client = stage.client()
        let transport = ScriptedTransport()
        let connection = try fullConnection(stage, transport)
        transport.isOpen = true
        _ = transport.flush()
        stage.proxy.closeInOrder(connection)
        #expect(connection.isClosed && transport.hasFinished)
        #expect(client.hasEnded)
    }
}
