import Glibc
import ShmRing

/// A request finds its backend and a connection there, and its head goes out.
extension Proxy {
    /// Begins an attempt.
    /// - Parameters:
    ///   - allowsReuse: False when the attempt must have a fresh connection.
    ///   - wanted: Where the request has to go, unless that backend was taken out meanwhile.
    func dispatch(_ exchange: Exchange, allowsReuse: Bool = true, to wanted: Endpoint? = nil) {
        if exchange.attemptCount == 0 { retryBudget.requestBegan() }
        exchange.attemptCount += 1
        exchange.attempt = AttemptRecord()
        exchange.attempt.selectionStartNs = stampNs()
        guard let endpoint = selectEndpoint(exchange, wanted) else {
            exchange.attempt.selectionEndNs = stampNs()
            return noEndpoint(exchange)
        }
        exchange.attempt.endpoint = endpoint.index
        exchange.attempt.isTrial = endpoint.updateHealth { $0.requestStarted(nowNs: nowNs) }
        exchange.attempt.selectionEndNs = stampNs()
        acquireConnection(exchange, endpoint, allowsReuse: allowsReuse)
    }

    private func selectEndpoint(_ exchange: Exchange, _ wanted: Endpoint?) -> Endpoint? {
        var healthy = 0
        for endpoint in endpoints where endpoint.health.isHealthy { healthy += 1 }
        exchange.attempt.healthyCount = healthy
        if let wanted, wanted.health.admits(nowNs: nowNs) { return wanted }
        var turn = strategy
        let chosen = turn.choose(among: endpoints.count) { index in
            endpoints[index].health.admits(nowNs: nowNs) && isReachable(endpoints[index], for: exchange)
        }
        strategy = turn
        return chosen.map { endpoints[$0] }
    }

    /// False when every address of the backend has failed for this request.
    private func isReachable(_ endpoint: Endpoint, for exchange: Exchange) -> Bool {
        guard exchange.hasFailures else { return true }
        let failures = exchange.connectFailures.reduce(0) { $0 + ($1 == endpoint.index ? 1 : 0) }
        return failures < endpoint.addresses.count
    }

    /// Whether another attempt would find a backend to go to.
    func hasCandidate(_ exchange: Exchange) -> Bool {
        endpoints.contains { $0.health.admits(nowNs: nowNs) && isReachable($0, for: exchange) }
    }

    /// Nobody to ask: after failed attempts the last failure is the better answer.
    private func noEndpoint(_ exchange: Exchange) {
        let error = exchange.pastAttempts.last?.error ?? .noHealthyBackend
        exchange.attempt.error = error
        answer(exchange, error)
    }

    func acquireConnection(_ exchange: Exchange, _ endpoint: Endpoint, allowsReuse: Bool) {
        takesStream(exchange, endpoint)
            ? acquireStream(exchange, endpoint) : acquireHTTP1(exchange, endpoint, allowsReuse: allowsReuse)
    }

    /// A connection that carries one request at a time.
    func acquireHTTP1(_ exchange: Exchange, _ endpoint: Endpoint, allowsReuse: Bool) {
        guard let client = exchange.downstream else { preconditionFailure("an exchange without a client") }
        let waiter = PoolState.Waiter(slot: client.slot, generation: client.generation)
        let acquired = endpoint.pool.acquire(allowsReuse: allowsReuse, waiter: waiter)
        exchange.attempt.idleCount = acquired.idleBefore
        exchange.attempt.activeCount = acquired.activeBefore
        switch acquired.action {
        case .reuse(let slot):
            guard let connection = upstreams.occupant(slot) else {
                preconditionFailure("idle connection \(slot) is gone")
            }
            exchange.attempt.poolOutcome = .reused
            // Taking it from the list is no time that a span could show: the end of the selection is its time too.
            attach(exchange, connection, atNs: nowNs)
            sendRequest(exchange)
        case .connect:
            exchange.attempt.poolOutcome = .created
            connect(exchange, endpoint)
        case .connectReplacing(let slot):
            exchange.attempt.poolOutcome = .created
            replaceIdle(slot, for: exchange, endpoint)
        case .wait: waitInLine(exchange, client)
        case .reject: rejectFromLine(exchange)
        }
    }

    func waitInLine(_ exchange: Exchange, _ client: DownstreamConnection) {
        exchange.attempt.poolOutcome = .waited
        exchange.phase = .waitingForConnection
        tracer?.waiting(exchange)
        downstreamDeadlines.arm(client, .poolWait, nowNs: nowNs)
    }

    func rejectFromLine(_ exchange: Exchange) {
        abandonTrial(exchange)
        exchange.attempt.error = .poolQueueFull
        answer(exchange, .poolQueueFull)
    }

    private func replaceIdle(_ slot: Int, for exchange: Exchange, _ endpoint: Endpoint) {
        // The pool has forgotten the idle connection already; its place in `total` goes to the new one.
        if let connection = upstreams.occupant(slot) {
            closes(connection, .replaced)
            discardUpstream(connection)
        }
        connect(exchange, endpoint)
    }

    /// A connection became free, or may be made, for the first request in line.
    func connectWaiter(_ waiter: PoolState.Waiter, _ endpoint: Endpoint) {
        guard let exchange = waitingExchange(waiter, endpoint) else { return releasePlace(endpoint) }
        if let client = exchange.downstream { downstreamDeadlines.disarm(client) }
        connect(exchange, endpoint)
        if let client = downstreams.occupant(waiter.slot, generation: waiter.generation) {
            noticeHalfClose(client, exchange)
        }
    }

    /// Whom the place in line belongs to, if that request still waits there.
    func waitingExchange(_ waiter: PoolState.Waiter, _ endpoint: Endpoint) -> Exchange? {
        guard let client = downstreams.occupant(waiter.slot, generation: waiter.generation),
            let exchange = client.exchange, exchange.phase == .waitingForConnection,
            exchange.attempt.endpoint == endpoint.index
        else { return nil }
        return exchange
    }

    /// A place that was counted for somebody who left goes to the next in line.
    /// - Parameter isHTTP2: The place is one for a connection of streams.
    func releasePlace(_ endpoint: Endpoint, isHTTP2: Bool = false) {
        if isHTTP2 {
            endpoint.http2Pool.failed()
            return deferred.append(.serveLine(endpoint))
        }
        if let next = endpoint.pool.connectionClosed(nil) { deferred.append(.connectWaiter(next, endpoint)) }
    }

    func connect(_ exchange: Exchange, _ endpoint: Endpoint) {
        exchange.phase = .connecting
        tracer?.connecting(exchange, endpoint)
        let now = stampNs()
        exchange.attempt.acquireEndNs = now
        exchange.attempt.connectStartNs = now
        exchange.attempt.addressIndex = endpoint.addressIndex
        let history = beginHistory(exchange)
        switch Socket.connect(endpoint.addresses[endpoint.addressIndex]) {
        case .connected(let descriptor):
            openUpstream(exchange, endpoint, descriptor, isConnecting: false, history)
        case .inProgress(let descriptor):
            openUpstream(exchange, endpoint, descriptor, isConnecting: true, history)
        case .failed(let error):
            releasePlace(endpoint, isHTTP2: exchange.attempt.http2.isPooled)
            recordFailure(history, exchange, endpoint, Self.errorType(connecting: error))
            connectFailed(exchange, Self.errorType(connecting: error))
        }
    }

    private func openUpstream(
        _ exchange: Exchange, _ endpoint: Endpoint, _ descriptor: Int32, isConnecting: Bool,
        _ history: ConnectionHistory?
    ) {
        let number = exchange.attempt.connection
        let inserted = upstreams.insert { slot, generation in
            UpstreamConnection(
                descriptor: descriptor, slot: slot, generation: generation, endpoint: endpoint, number: number,
                address: endpoint.addressIndex, isConnecting: isConnecting)
        }
        guard let connection = inserted else { preconditionFailure("the upstream table is full") }
        connection.isWritable = !isConnecting
        connection.isHTTP2 = exchange.attempt.http2.isPooled
        connection.history = history
        exchange.upstream = connection
        connection.exchange = exchange
        let token = EventToken(kind: .upstream, slot: connection.slot, generation: connection.generation)
        do {
            try poller.addConnection(descriptor, token: token)
        } catch {
            return connectFailed(exchange, .resourceExhausted)
        }
        if isConnecting {
            upstreamDeadlines.arm(connection, .connect, nowNs: nowNs)
        } else {
            connected(exchange, connection)
        }
    }

    /// epoll says that the connect ended, one way or the other.
    func connectEnded(_ connection: UpstreamConnection) {
        guard let exchange = connection.exchange else { preconditionFailure("a connect for nobody") }
        if let error = Socket.pendingError(connection.descriptor) {
            return connectFailed(exchange, Self.errorType(connecting: error))
        }
        guard connection.isWritable else { return }
        connection.isConnecting = false
        connected(exchange, connection)
    }

    private func connected(_ exchange: Exchange, _ connection: UpstreamConnection) {
        exchange.attempt.connectEndNs = stampNs()
        if connection.endpoint.isSecure { return startHandshake(exchange, connection) }
        connectionReady(exchange, connection)
    }

    /// The connection can carry a request.
    func connectionReady(_ exchange: Exchange, _ connection: UpstreamConnection) {
        exchange.attempt.connectingEnded(
            atNs: exchange.attempt.handshakeStartNs > 0 ? stampNs() : exchange.attempt.connectEndNs)
        upstreamDeadlines.disarm(connection)
        if connection.endpoint.isSecure { settleVersion(exchange, connection) }
        connection.history?.made(by: exchange)
        if connection.isHTTP2 { return startHTTP2(exchange, connection) }
        sendRequest(exchange)
    }

    static func errorType(connecting error: Errno) -> ErrorType {
        switch error.rawValue {
        case ECONNREFUSED, ENOENT: .connectRefused
        case ETIMEDOUT: .connectTimeout
        // This machine's own limits: descriptors, memory, ports, a full backlog of a Unix socket, a filter.
        case EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL, EAGAIN, EACCES, EPERM: .resourceExhausted
        default: .connectFailed
        }
    }

    /// Gives an idle connection to the request.
    func attach(_ exchange: Exchange, _ connection: UpstreamConnection, atNs now: UInt64) {
        upstreamDeadlines.disarm(connection)
        connection.isIdle = false
        exchange.upstream = connection
        connection.exchange = exchange
        exchange.attempt.connection = connection.number
        exchange.attempt.addressIndex = connection.address
        exchange.attempt.acquireEndNs = now
        exchange.attempt.connectionEndNs = now
    }

    /// Writes the head, and the body if it is whole, and sends as much as the kernel takes.
    func sendRequest(_ exchange: Exchange) {
        guard let connection = exchange.upstream, let client = exchange.downstream, let retained = exchange.retained
        else { preconditionFailure("a request without a connection or a head") }
        exchange.phase = .awaitingHead
        // The connection was stamped the moment before, on every way that leads here.
        exchange.attempt.requestStartNs = exchange.attempt.connectionEndNs
        parseAgainIfNeeded(exchange, retained)
        let fallbackHost = connection.endpoint.hostField
        let lines = certificateLines(client)
        var additions = HeadWriter.RequestAdditions(fallbackHost: fallbackHost)
        additions.isSecure = client.isSecure
        additions.certificateLines = lines
        if let tracer {
            exchange.attempt.spanID = tracer.newSpanID()
            tracer.attemptBegan(exchange, connection.endpoint)
            connection.history?.requestStarted(exchange.identity)
            additions.identity = exchange.identity
            additions.attemptSpanID = exchange.attempt.spanID
        }
        writeHead(exchange, client, connection, retained, additions)
        if exchange.wholeBodyBytes > 0 {
            let output = connection.outputBuffer(room: exchange.wholeBodyBytes + 64, buffers)
            let body = retained.readable.extracting(exchange.head.headBytes..<retained.readableBytes)
            BodyRelay.writeWhole(body, exchange.head.framing, to: output)
        }
        if connection.stream != nil, exchange.wholeBodyBytes < 0, exchange.head.framing != .none {
            exchange.requestRelay.keep(bytesMax: configuration.pool.retryBufferBytes, buffers)
        }
        if Self.handsOverEnd(of: client.stream, to: connection.stream, exchange.head.framing) {
            exchange.requestRelay.handOverEnd()
        }
        pumpRequest(exchange)
    }

    /// Gives the head to the stream as it is, or puts it in front of what goes out.
    private func writeHead(
        _ exchange: Exchange, _ client: DownstreamConnection, _ connection: UpstreamConnection, _ retained: ByteBuffer,
        _ additions: HeadWriter.RequestAdditions
    ) {
        let bytes = retained.readable
        if let stream = connection.stream,
            stream.sendHead(bytes, exchange.head, table, peer: client.peer.ip, additions)
        {
            return exchange.requestRelay.headPassed(exchange.head.headBytes)
        }
        let room = HeadWriter.requestBytesMax(
            exchange.head, fallbackHost: additions.fallbackHost, certificateLines: additions.certificateLines)
        let output = connection.outputBuffer(room: room + max(0, exchange.wholeBodyBytes) + 64, buffers)
        HeadWriter.writeRequest(bytes, exchange.head, table, peer: client.peer.ip, additions, to: output)
    }

    /// Where some clients are asked for a certificate, those of the plain port have none either, whatever they say.
    private func certificateLines(_ client: DownstreamConnection) -> [UInt8] {
        guard client.certificateLines.isEmpty, configuration.tlsServer?.asksForCertificates == true else {
            return client.certificateLines
        }
        return ClientIdentity.noneLines
    }

    /// The field table holds one message; another may have been parsed since.
    func parseAgainIfNeeded(_ exchange: Exchange, _ retained: ByteBuffer) {
        guard tableOwner !== exchange else { return }
        guard case .complete = requestParser.parse(retained.readable, into: table) else {
            preconditionFailure("a head that was parsed once cannot be parsed again")
        }
        tableOwner = exchange
    }
}
