import ShmRing

/// The backend's side: its events, response heads, and the end of a request that was answered.
extension Proxy {
    /// Reads of one turn, after which others get theirs.
    private static let readsPerTurn = 16
    private static let freeExchangesMax = 256

    func upstreamEvent(_ connection: UpstreamConnection, _ readiness: Readiness) {
        if connection.isConnecting {
            connectEnded(connection)
            // The same edge may have said that the backend wrote or closed; it will not be said again.
            if !connection.isClosed, !connection.isConnecting, connection.isReadable { deferUpstream(connection) }
            return
        }
        if connection.isHandshaking { return continueHandshake(connection) }
        if connection.session != nil { return upstreamCarrierEvent(connection, readiness) }
        if connection.isLingering {
            // Its end is here, or that of its connection; whatever else comes belongs to no message.
            return connection.stream?.lacksOnlyEnd ?? false ? () : closeUpstream(connection)
        }
        guard let exchange = connection.exchange else {
            // An idle connection has nothing to say: bytes or an end both make it useless.
            if readiness.isReadable || readiness.peerFinished, !isStillIdle(connection) {
                idleEnded(connection, readiness)
                closeUpstream(connection)
            }
            return
        }
        if exchange.phase == .tunnel {
            // What is left after both sides' FIN is only an error.
            if readiness.hasError, connection.sawEnd { return finishTunnel(exchange, error: .upstreamReset) }
            return pumpTunnel(exchange)
        }
        if exchange.isRequestBlocked, connection.isWritable {
            pumpRequest(exchange)
            guard connection.exchange === exchange, !connection.isClosed else { return }
        }
        serveUpstream(exchange, connection)
    }

    /// Whether what came was none of the application's bytes: a session ticket, a key update.
    private func isStillIdle(_ connection: UpstreamConnection) -> Bool {
        connection.transport != nil && !connection.peerFinished && connection.receive(buffers) == .wouldBlock
    }

    func deferUpstream(_ connection: UpstreamConnection) {
        deferred.append(.continueUpstream(slot: connection.slot, generation: connection.generation))
    }

    func continueUpstream(_ connection: UpstreamConnection) {
        if connection.session != nil { return readUpstreamCarrier(connection) }
        guard let exchange = connection.exchange, !connection.isConnecting else { return }
        exchange.phase == .tunnel ? pumpTunnel(exchange) : serveUpstream(exchange, connection)
    }

    /// Reads what the backend says about this request.
    func serveUpstream(_ exchange: Exchange, _ connection: UpstreamConnection) {
        switch exchange.phase {
        case .awaitingHead: if connection.isReadable || connection.hasInput { readResponseHead(exchange, connection) }
        case .streaming: if !exchange.isResponseBlocked { pumpResponse(exchange) }
        case .waitingForConnection, .connecting, .tunnel, .answering, .finished: break
        }
    }

    private func readResponseHead(_ exchange: Exchange, _ connection: UpstreamConnection) {
        for _ in 0..<Self.readsPerTurn {
            guard exchange.phase == .awaitingHead, exchange.upstream === connection else { return }
            if let input = connection.input, !input.isEmpty, takeResponseHead(exchange, connection, input) { continue }
            guard exchange.phase == .awaitingHead, exchange.upstream === connection else { return }
            switch connection.receive(buffers, bytesMax: http2.readSize.rawValue) {
            case .bytes: continue
            case .wouldBlock: return connection.parkInput(buffers)
            case .endOfStream: return attemptFailed(exchange, .upstreamClosed, connectionEnded: true)
            case .failed: return attemptFailed(exchange, .upstreamReset, connectionEnded: true)
            }
        }
        deferUpstream(connection)
    }

    /// Parses a head from the input.
    /// - Returns: True when one was taken and the next step follows from the exchange's phase.
    private func takeResponseHead(
        _ exchange: Exchange, _ connection: UpstreamConnection, _ input: ByteBuffer
    ) -> Bool {
        tableOwner = nil
        switch responseParser.parse(input.readable, answering: exchange.head.method, into: table) {
        case .incomplete: return false
        case .malformed, .headTooLarge:
            attemptFailed(exchange, .upstreamProtocolError, connectionEnded: false)
            return false
        case .complete(let head):
            if head.status == 101 {
                startTunnel(exchange, head, connection, input)
            } else if head.isInterim {
                return passInterim(exchange, head, connection, input)
            } else {
                startResponse(exchange, head, connection, input)
            }
            return true
        }
    }

    /// 100 and 103 go to the client as they are; one that speaks HTTP/1.0 would not understand them
    /// (RFC 9110 §15.2).
    private func passInterim(
        _ exchange: Exchange, _ head: ResponseHead, _ connection: UpstreamConnection, _ input: ByteBuffer
    ) -> Bool {
        guard let client = exchange.downstream else { return false }
        exchange.interimCount += 1
        guard exchange.interimCount <= ResponseParser.interimMax else {
            attemptFailed(exchange, .upstreamProtocolError, connectionEnded: false)
            return false
        }
        if exchange.head.minorVersion >= 1 {
            let output = client.outputBuffer(room: HeadWriter.responseBytesMax(head), buffers)
            HeadWriter.writeResponse(input.readable, head, table, HeadWriter.ResponseAdditions(), to: output)
        }
        input.consume(head.headBytes)
        connection.releaseEmptyInput(buffers)
        flushInterim(exchange)
        return exchange.upstream === connection
    }

    private func startResponse(
        _ exchange: Exchange, _ head: ResponseHead, _ connection: UpstreamConnection, _ input: ByteBuffer
    ) {
        guard let client = exchange.downstream else { return }
        responseArrived(exchange, connection, status: head.status)
        if client.stream?.isExtendedConnect ?? false, (200..<300).contains(head.status) {
            return upgradeIgnored(exchange)
        }
        exchange.response = head
        exchange.phase = .streaming
        tracer?.responseBegan(exchange, status: head.status, .streamingResponse)
        exchange.statusSent = head.status
        let additions = responseAdditions(exchange, head, client)
        let handsOverEnd = Self.handsOverEnd(of: connection.stream, to: client.stream, head.framing)
        if client.output != nil || !(client.stream?.sendHead(input.readable, head, table, additions) ?? false) {
            let output = client.outputBuffer(room: HeadWriter.responseBytesMax(head), buffers)
            HeadWriter.writeResponse(input.readable, head, table, additions, to: output)
        }
        input.consume(head.headBytes)
        connection.releaseEmptyInput(buffers)
        exchange.responseRelay.restart(head.framing, writesChunks: additions.writesChunks)
        if handsOverEnd { exchange.responseRelay.handOverEnd() }
        pumpResponse(exchange)
    }

    /// Any response head, whatever its status, shows that the backend works.
    func responseArrived(_ exchange: Exchange, _ connection: UpstreamConnection, status: Int) {
        let now = stampNs()
        exchange.attempt.requestEndNs = now
        exchange.attempt.status = status
        exchange.streamingStartNs = now
        if connection.endpoint.updateHealth({ $0.requestSucceeded() }) {
            logger.info("backend is back", metadata: ["backend": "\(connection.endpoint.name)"])
        }
        exchange.attempt.isTrial = false
        exchange.requestRelay.forgetKept(buffers)
    }

    /// Decides how the body is framed for this client, and whether its connection goes on.
    private func responseAdditions(
        _ exchange: Exchange, _ head: ResponseHead, _ client: DownstreamConnection
    ) -> HeadWriter.ResponseAdditions {
        var additions = HeadWriter.ResponseAdditions()
        let isOldClient = exchange.head.minorVersion == 0
        switch head.framing {
        case .none, .length: break
        case .chunked, .untilClose:
            additions.writesChunks = !isOldClient
            if isOldClient { exchange.mustClose = true }
        }
        if !exchange.isRequestRead || exchange.isRequestAbandoned || !mayGoOn(client) { exchange.mustClose = true }
        additions.closes = exchange.mustClose
        additions.keepsAlive = isOldClient && !exchange.mustClose
        return additions
    }

    /// The client's kernel has the whole response.
    func finishResponse(_ exchange: Exchange) {
        guard let connection = exchange.upstream else { preconditionFailure("a response from nowhere") }
        exchange.upstream = nil
        connection.exchange = nil
        connection.requestCount += 1
        if let stream = connection.stream {
            exchange.attempt.http2.bodyBytes = stream.bodyBytesTaken
            connection.carrier?.requestCount += 1
            closeUpstream(connection)
            return finish(exchange)
        }
        // A read that filled its buffer exactly leaves open whether more is there: then it was too much.
        if connection.isReadable, !connection.peerFinished { _ = connection.receive(buffers) }
        let isClean = exchange.isRequestRead && !exchange.isRequestAbandoned && !connection.hasOutput
        if isClean, exchange.response.isPersistent, !connection.hasInput, !connection.peerFinished,
            !connection.isReadable, !isDraining
        {
            releaseUpstream(connection)
        } else {
            notKept(connection, exchange)
            closeUpstream(connection)
        }
        finish(exchange)
    }

    /// The exchange is over and told; its client's connection goes on, lingers or closes.
    func finish(_ exchange: Exchange) {
        guard let client = exchange.downstream else { preconditionFailure("an exchange without a client") }
        let mustClose = exchange.mustClose
        closeExchange(exchange)
        if mustClose { return startLinger(client) }
        client.phase = .reading
        guard !isDraining else { return retire(client) }
        downstreamDeadlines.arm(client, .keepAlive, nowNs: nowNs)
        // Pipelined requests, or an end that was announced while this one was served.
        if client.hasInput || client.isReadable { deferDownstream(client) }
    }

    private func keepForNextUse(_ exchange: Exchange) {
        guard freeExchangeCount < Self.freeExchangesMax else {
            tracer?.exchangeDropped(exchange)
            return
        }
        exchange.nextFree = freeExchange
        freeExchange = exchange
        freeExchangeCount += 1
    }

    /// Writes the trace and the log line and takes the exchange apart.
    func closeExchange(_ exchange: Exchange) {
        guard let client = exchange.downstream else { preconditionFailure("an exchange without a client") }
        exchange.endedNs = stampNs()
        exchange.phase = .finished
        tracer?.record(exchange, client, endpoints, strategy: strategy.name)
        tracer?.requestEnded(exchange)
        accessLog?.record(exchange, client, endpoints)
        if let retained = exchange.retained { buffers.give(retained) }
        exchange.requestRelay.forgetKept(buffers)
        if tableOwner === exchange { tableOwner = nil }
        client.exchange = nil
        exchange.reset()
        keepForNextUse(exchange)
    }
}
