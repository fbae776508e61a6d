import ShmRing

/// The client's side: its events, and the heads of its requests.
extension Proxy {
    func downstreamEvent(_ connection: DownstreamConnection, _ readiness: Readiness) {
        switch connection.phase {
        case .handshaking: continueHandshake(connection)
        case .reading: readRequest(connection)
        case .lingering: linger(connection)
        case .carrying: carrierEvent(connection, readiness)
        case .serving:
            guard let exchange = connection.exchange else { preconditionFailure("serving without an exchange") }
            serveDownstream(exchange, connection, readiness)
        }
    }

    private func serveDownstream(_ exchange: Exchange, _ connection: DownstreamConnection, _ readiness: Readiness) {
        // In a tunnel both sides may have ended in order, which epoll reports as it does a break.
        if exchange.phase == .tunnel {
            if readiness.hasError, connection.sawEnd { return finishTunnel(exchange, error: .clientClosed) }
            return pumpTunnel(exchange)
        }
        if readiness.isBroken { return clientGone(exchange) }
        if exchange.isResponseBlocked, connection.isWritable {
            continueResponse(exchange)
            guard connection.exchange === exchange else { return }
        }
        if !exchange.isRequestRead {
            if exchange.phase == .awaitingHead || exchange.phase == .streaming { pumpRequest(exchange) }
        } else if connection.peerFinished {
            clientHalfClosed(exchange)
        }
    }

    /// Goes on where a turn ended early, or where bytes wait that no event will announce again.
    func continueDownstream(_ connection: DownstreamConnection) {
        downstreamEvent(
            connection,
            Readiness(isReadable: false, isWritable: false, peerFinished: false, isBroken: false, hasError: false))
    }

    func deferDownstream(_ connection: DownstreamConnection) {
        deferred.append(.continueDownstream(slot: connection.slot, generation: connection.generation))
    }

    /// Reads and serves the next request, if it is whole.
    func readRequest(_ connection: DownstreamConnection) {
        while connection.phase == .reading, !connection.isClosed {
            if connection.hasInput {
                guard takeRequest(connection) else { return }
                continue
            }
            switch connection.receive(buffers) {
            case .bytes: continue
            case .wouldBlock: return
            case .endOfStream, .failed: return closeDownstream(connection)
            }
        }
    }

    /// Parses what is in the input. After a request, whatever waits behind it is served in a turn of its
    /// own, so that one client's pipeline cannot keep the others waiting.
    /// - Returns: True when there may be another head to look at now.
    private func takeRequest(_ connection: DownstreamConnection) -> Bool {
        guard let input = connection.input else { return true }
        let skipped = RequestParser.leadingEmptyLines(input.readable)
        if skipped > 0 {
            input.consume(skipped)
            connection.releaseEmptyInput(buffers)
            return true
        }
        if input.readableBytes == 1, input.readable[0] == 0x0D { return waitForHead(connection) }
        if connection.requestCount == 0, input.readable[0] == UInt8(ascii: "P"), connection.stream == nil {
            switch Self.preface(input.readable) {
            case .none: break
            case .incomplete: return waitForHead(connection)
            case .whole:
                startCarrying(connection)
                return false
            }
        }
        // The last reading is that of the event before, or of the turn's begin: no later than the bytes were there.
        if connection.headStartedNs == 0 { connection.headStartedNs = nowNs }
        tableOwner = nil
        switch requestParser.parse(input.readable, into: table) {
        case .complete(let head):
            beginExchange(connection, head, input)
            return false
        case .refused(let reason):
            logClientHello(input.readable)
            refuse(connection, reason.errorType, isTableCurrent: true)
            return false
        case .incomplete:
            return waitForHead(connection)
        }
    }

    /// - Returns: True when more bytes were there already.
    private func waitForHead(_ connection: DownstreamConnection) -> Bool {
        switch connection.receive(buffers) {
        case .bytes: return true
        case .wouldBlock:
            connection.parkInput(buffers)
            if downstreamDeadlines.armed(connection) != .requestHead {
                downstreamDeadlines.arm(connection, .requestHead, nowNs: nowNs)
            }
        case .endOfStream, .failed:
            closeDownstream(connection)
        }
        return false
    }

    /// The head is whole: from here on there is a request, and whatever happens to it is told.
    private func beginExchange(_ connection: DownstreamConnection, _ head: RequestHead, _ input: ByteBuffer) {
        let exchange = openExchange(connection)
        exchange.head = head
        let isSound = retainRequest(exchange, head, input)
        connection.releaseEmptyInput(buffers)
        tableOwner = exchange
        identify(exchange)
        let limits = configuration.limits
        let isLastRequest =
            limits.requestsPerConnectionMax > 0 && connection.requestCount >= limits.requestsPerConnectionMax
        exchange.mustClose = !head.isPersistent || isLastRequest || connection.stream != nil
        let bodyBytesMax = limits.requestBodyBytesMax
        if bodyBytesMax > 0, case .length(let count) = head.framing, count > bodyBytesMax {
            return answer(exchange, .bodyTooLarge)
        }
        guard isSound else { return answer(exchange, .protocolError) }
        dispatch(exchange)
        noticeHalfClose(connection, exchange)
    }

    private func takeFreeExchange() -> Exchange? {
        guard let exchange = freeExchange else { return nil }
        freeExchange = exchange.nextFree
        exchange.nextFree = nil
        freeExchangeCount -= 1
        return exchange
    }

    /// A fresh exchange for the connection; its clock runs from the head's first byte.
    func openExchange(_ connection: DownstreamConnection) -> Exchange {
        let exchange = takeFreeExchange() ?? Exchange()
        exchange.downstream = connection
        connection.exchange = exchange
        connection.phase = .serving
        connection.requestCount += 1
        downstreamDeadlines.disarm(connection)
        exchange.startedNs = connection.headStartedNs == 0 ? nowNs : connection.headStartedNs
        connection.headStartedNs = 0
        if isTimed { exchange.startedUnixNs = unixNs(at: exchange.startedNs) }
        return exchange
    }

    /// Keeps the head, and the body where it is all here: then the request can be sent again as it is.
    /// - Returns: False when the body is malformed as far as it is here.
    func retainRequest(_ exchange: Exchange, _ head: RequestHead, _ input: ByteBuffer) -> Bool {
        let bytes = input.readable
        let rest = bytes.extracting(head.headBytes..<bytes.count)
        let presence = head.framing == .none ? .whole(bytes: 0, data: 0) : BodyRelay.presence(rest, head.framing)
        let limit = configuration.limits.requestBodyBytesMax
        var fits = false
        var kept = head.headBytes
        // A chunked body near the limit streams, so that the relay can count its data.
        if case .whole(let count, let data) = presence, limit == 0 || count <= limit || head.framing != .chunked {
            fits = true
            kept += count
            exchange.wholeDataBytes = data
        }
        let retained = buffers.take(holding: kept)
        retained.append(bytes.extracting(first: kept))
        exchange.retained = retained
        exchange.wholeBodyBytes = fits ? kept - head.headBytes : -1
        input.consume(kept)
        restartRequestRelay(exchange)
        return presence != .malformed
    }

    /// How the request's body goes on: already done when it stands in `retained`.
    func restartRequestRelay(_ exchange: Exchange) {
        let framing = exchange.wholeBodyBytes >= 0 ? BodyFraming.none : exchange.head.framing
        exchange.requestRelay.restart(
            framing, writesChunks: framing == .chunked, bytesMax: configuration.limits.requestBodyBytesMax)
    }

    /// Reads the caller's trace context and draws the ids, if anybody will look at them.
    func identify(_ exchange: Exchange) {
        guard let tracer, let retained = exchange.retained else { return }
        exchange.identity = tracer.identify(retained.readable, table)
        tracer.requestBegan(exchange, retained.readable)
        exchange.userAgent = table.first(.userAgent)?.value ?? 0..<0
        if exchange.identity.keepsTraceState, table.contains(.tracestate) {
            exchange.keepTraceState(Self.joinedTraceState(retained.readable, table))
        }
    }

    /// Several fields are one list (W3C Trace Context §3.3.1).
    private static func joinedTraceState(_ bytes: Span<UInt8>, _ table: FieldTable) -> [UInt8] {
        var joined: [UInt8] = []
        for line in table.lines where line.known == .tracestate && !line.value.isEmpty {
            if !joined.isEmpty { joined.append(UInt8(ascii: ",")) }
            for index in line.value { joined.append(bytes[index]) }
        }
        return joined
    }

    /// The client's FIN may have come with its request, or while the request stood in line.
    func noticeHalfClose(_ connection: DownstreamConnection, _ exchange: Exchange) {
        guard connection.exchange === exchange, connection.peerFinished, exchange.isRequestRead else { return }
        clientHalfClosed(exchange)
    }

    /// The client closed its sending side after a complete request. It may be gone, or merely done: its
    /// answer gets a short time to begin.
    private func clientHalfClosed(_ exchange: Exchange) {
        guard let connection = exchange.downstream, exchange.statusSent == 0, exchange.phase != .answering
        else { return }
        guard downstreamDeadlines.armed(connection) == nil else { return }
        downstreamDeadlines.arm(connection, .halfClose, nowNs: nowNs)
    }
}
