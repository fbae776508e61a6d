import Logging
import ShmRing

/// Backends that speak HTTP/2. A connection to one is a carrier of streams, made by one request and shared by all;
/// each stream is an `UpstreamConnection` of its own, which serves one request and ends with it.
///
///     connecting ─► making (preface out, SETTINGS awaited) ─► ready ─► retired ─► closed
///         the request that makes it waits with it              └─ streams ─┘
extension Proxy {
    private static let readsPerTurn = 16
    /// Streams that are opened on one connection at once, whatever its server allows.
    private static let streamsMax: UInt32 = 1000

    // MARK: A stream for a request

    /// The stream's part of `acquireConnection`.
    func acquireStream(_ exchange: Exchange, _ endpoint: Endpoint) {
        guard let client = exchange.downstream else { preconditionFailure("an exchange without a client") }
        let waiter = PoolState.Waiter(slot: client.slot, generation: client.generation)
        let refusing = exchange.refusingConnection.flatMap { upstreams.occupant($0.slot, generation: $0.generation) }
        let acquired = endpoint.http2Pool.acquire(waiter, avoiding: refusing?.slot)
        exchange.attempt.http2.isPooled = true
        // What an https backend speaks shows in the handshake.
        exchange.attempt.http2.isUsed = !endpoint.isSecure
        exchange.attempt.idleCount = acquired.idleBefore
        exchange.attempt.activeCount = acquired.activeBefore
        switch acquired.action {
        case .open(let slot):
            exchange.attempt.poolOutcome = .reused
            openStream(exchange, on: slot)
        case .connect:
            exchange.attempt.poolOutcome = .created
            connect(exchange, endpoint)
        case .wait: waitInLine(exchange, client)
        case .reject: rejectFromLine(exchange)
        }
    }

    /// Opens a stream that the pool has counted, and sends the request on it.
    private func openStream(_ exchange: Exchange, on slot: Int) {
        guard let carrier = upstreams.occupant(slot), let session = carrier.session else {
            preconditionFailure("the connection \(slot) of a pool is gone")
        }
        let opensTunnel = exchange.attempt.http2.opensTunnel
        if opensTunnel, !session.peerSettings.allowsExtendedConnect { return tunnelRefused(exchange, carrier) }
        let stream = session.openStream()
        stream.opensTunnel = opensTunnel
        let inserted = upstreams.insert { slot, generation in
            streamObjects.upstream(stream, on: carrier, slot: slot, generation: generation)
        }
        guard let connection = inserted else { preconditionFailure("the upstream table is full") }
        stream.upstream = connection
        let now = stampNs()
        exchange.attempt.http2.isUsed = true
        exchange.attempt.http2.streamsActive = carrier.endpoint.http2Pool.streams(on: slot)
        attach(exchange, connection, atNs: now)
        retireIfOld(carrier)
        sendRequest(exchange)
    }

    /// A connection does not serve for ever: its age and its stream numbers are bounded.
    private func retireIfOld(_ carrier: UpstreamConnection) {
        let ageMaxNs = configuration.pool.connectionAgeNs
        let isOld = ageMaxNs > 0 && nowNs >= carrier.readyAtNs &+ ageMaxNs
        let isPaused = carrier.endpoint.isPaused(nowNs: nowNs)
        guard isOld || isPaused || carrier.session?.isShortOfStreams ?? false else { return }
        closes(carrier, isPaused ? .http1Required : isOld ? .maxAge : .streamIDsExhausted)
        _ = carrier.endpoint.http2Pool.retired(carrier.slot)
    }

    /// Gives the first in line what there is for them.
    func serveLine(_ endpoint: Endpoint) {
        while let action = endpoint.http2Pool.nextForLine() {
            switch action {
            case .open(let waiter, let slot):
                guard let exchange = leaveLine(waiter, endpoint) else {
                    endpoint.http2Pool.streamClosed(on: slot)
                    continue
                }
                openStream(exchange, on: slot)
                lookAtClient(waiter, exchange)
            case .connect(let waiter):
                guard let exchange = leaveLine(waiter, endpoint) else {
                    endpoint.http2Pool.failed()
                    continue
                }
                connect(exchange, endpoint)
                lookAtClient(waiter, exchange)
            }
        }
    }

    func leaveLine(_ waiter: PoolState.Waiter, _ endpoint: Endpoint) -> Exchange? {
        guard let exchange = waitingExchange(waiter, endpoint) else { return nil }
        if let client = exchange.downstream { downstreamDeadlines.disarm(client) }
        return exchange
    }

    func lookAtClient(_ waiter: PoolState.Waiter, _ exchange: Exchange) {
        guard let client = downstreams.occupant(waiter.slot, generation: waiter.generation) else { return }
        noticeHalfClose(client, exchange)
    }

    func deferLine(_ endpoint: Endpoint) {
        if endpoint.http2Pool.waiterCount > 0 { deferred.append(.serveLine(endpoint)) }
    }

    // MARK: The connection

    /// The connection is made: the preface goes out, and the server's SETTINGS are awaited.
    func startHTTP2(_ exchange: Exchange, _ connection: UpstreamConnection) {
        let session = HTTP2Session(.client, http2)
        session.upstream = connection
        connection.session = session
        connection.isMaking = true
        exchange.attempt.http2.handshakeStartNs = exchange.attempt.connectionEndNs
        upstreamDeadlines.arm(connection, .connect, nowNs: nowNs)
    }

    func upstreamCarrierEvent(_ connection: UpstreamConnection, _ readiness: Readiness) {
        if let session = connection.session { resumeFrames(connection, session) }
        readUpstreamCarrier(connection)
    }

    func readUpstreamCarrier(_ connection: UpstreamConnection) {
        for _ in 0..<Self.readsPerTurn {
            guard let session = connection.session else { return }
            if let input = connection.input, !input.isEmpty {
                if connection.isMaking, let goaway = HTTP2Session.Goaway(first: input.readable) {
                    return makingRefused(goaway, connection)
                }
                session.receive(input.readable)
                armSilence(connection, session)
                input.consume(input.readableBytes)
                connection.releaseEmptyInput(buffers)
                lookAtConnection(connection, session)
                serveUpstreamStreams(session)
                noteCongestion(connection, session)
                continue
            }
            if mustWait(connection, session) { return }
            switch connection.receive(buffers) {
            case .bytes: continue
            case .wouldBlock: return
            case .endOfStream: return endUpstreamCarrier(connection, .upstreamClosed)
            case .failed: return endUpstreamCarrier(connection, .upstreamReset)
            }
        }
        deferUpstream(connection)
    }

    /// Clients that do not read fill their streams' windows, and all of them together the connection's. New requests
    /// are kept away from it before that.
    private func noteCongestion(_ connection: UpstreamConnection, _ session: HTTP2Session) {
        let isCongested = session.waitingBytes > http2.limits.connectionWindowBytes / 4
        guard isCongested != connection.isCongested else { return }
        connection.isCongested = isCongested
        connection.endpoint.http2Pool.congestionChanged(connection.slot, isCongested: isCongested)
        deferLine(connection.endpoint)
    }

    /// Something has come. The server owes no sign of life before it owes an acknowledgement no more.
    func armSilence(_ connection: UpstreamConnection, _ session: HTTP2Session) {
        guard !connection.isMaking, session.areSettingsAcknowledged, upstreamDeadlines.armed(connection) != .leaving
        else { return }
        upstreamDeadlines.arm(connection, .ping, nowNs: nowNs)
    }

    /// GOAWAY where SETTINGS should be: the server is leaving, and has processed nothing.
    private func makingRefused(_ goaway: HTTP2Session.Goaway, _ connection: UpstreamConnection) {
        guard let exchange = connection.exchange else { return closeHTTP2(connection) }
        let now = stampNs()
        // These bytes are no response.
        connection.input?.consume(connection.input?.readableBytes ?? 0)
        if goaway.wantsHTTP1 { speakHTTP1(to: connection.endpoint) }
        connection.history?.goawayReceived(goaway, atNs: now)
        closes(connection, .goaway)
        exchange.noteGoaway(GoawayNote(attempt: exchange.attemptCount, streamID: 0, goaway: goaway, atNs: now))
        exchange.attempt.connectingEnded(atNs: now)
        let wantsHTTP1 = connection.endpoint.isPaused(nowNs: nowNs)
        attemptFailed(
            exchange, .upstreamClosed, connectionEnded: true, unprocessed: wantsHTTP1 ? .http11Required : .goaway,
            atNs: now)
    }

    /// What the server said about the connection itself.
    private func lookAtConnection(_ connection: UpstreamConnection, _ session: HTTP2Session) {
        if session.settingsCount > connection.settingsSeen {
            connection.settingsSeen = session.settingsCount
            connection.history?.settingsReceived(session.peerSettings, atNs: stampNs())
            connection.endpoint.takesTunnels = session.peerSettings.allowsExtendedConnect
            let streamsMax = Int(min(session.peerSettings.streamsMax, Self.streamsMax))
            if connection.isMaking {
                connectionReady(connection, session, streamsMax: streamsMax)
            } else {
                connection.endpoint.http2Pool.limitChanged(connection.slot, streamsMax: streamsMax)
                deferLine(connection.endpoint)
            }
        }
        if session.pingAckCount > connection.pingsSeen { pingAnswered(connection, session) }
        for goaway in session.takeGoaways() { goawayArrived(goaway, connection, session) }
    }

    private func connectionReady(_ connection: UpstreamConnection, _ session: HTTP2Session, streamsMax: Int) {
        guard let exchange = connection.exchange else { preconditionFailure("a connection is made for nobody") }
        let now = stampNs()
        connection.isMaking = false
        connection.readyAtNs = now
        connection.exchange = nil
        exchange.upstream = nil
        exchange.attempt.http2.handshakeEndNs = now
        exchange.attempt.http2.peerSettings = session.peerSettings
        connection.history?.made(by: exchange)
        upstreamDeadlines.arm(connection, .settingsAnswer, nowNs: now)
        armSilence(connection, session)
        guard let client = exchange.downstream else { preconditionFailure("an exchange without a client") }
        let maker = PoolState.Waiter(slot: client.slot, generation: client.generation)
        if connection.endpoint.http2Pool.made(connection.slot, streamsMax: streamsMax, maker: maker) {
            openStream(exchange, on: connection.slot)
        } else {
            waitInLine(exchange, client)
        }
        deferLine(connection.endpoint)
    }

    /// No new streams there (RFC 9113 §6.8). libnghttp2 has closed those above the last one; they are told next.
    private func goawayArrived(
        _ goaway: HTTP2Session.Goaway, _ connection: UpstreamConnection, _ session: HTTP2Session
    ) {
        let now = stampNs()
        connection.history?.goawayReceived(goaway, atNs: now)
        closes(connection, .goaway)
        if connection.isMaking { return }
        _ = connection.endpoint.http2Pool.retired(connection.slot)
        if goaway.wantsHTTP1 { speakHTTP1(to: connection.endpoint) }
        for index in 0..<session.streams.count {
            let stream = session.streams[index]
            guard let exchange = stream.upstream?.exchange else { continue }
            exchange.noteGoaway(
                GoawayNote(
                    attempt: exchange.attemptCount, streamID: stream.id, goaway: goaway, atNs: now))
        }
        deferLine(connection.endpoint)
    }

    private func serveUpstreamStreams(_ session: HTTP2Session) {
        while let stream = session.nextTouched() {
            let news = stream.news
            stream.news = HTTP2Stream.News()
            if news.hasClosed {
                session.forget(stream)
                streamObjects.forgotten(stream)
                if stream.hasFinalHead, stream.hasInboundEnded { session.upstream?.history?.streamAnswered() }
            }
            guard let connection = stream.upstream else {
                if news.hasClosed { stream.dropInbound() }
                continue
            }
            tellUpstream(connection, stream, news)
        }
    }

    private func tellUpstream(_ connection: UpstreamConnection, _ stream: HTTP2Stream, _ news: HTTP2Stream.News) {
        let isBlocked = connection.exchange?.isRequestBlocked ?? false || connection.exchange?.phase == .tunnel
        guard news.isReadable || news.hasClosed || isBlocked else { return connection.isWritable = true }
        if news.hasClosed, stream.wasReset, let exchange = connection.exchange {
            exchange.attempt.http2.noteReset(code: stream.errorCode, isByPeer: stream.wasResetByPeer, atNs: stampNs())
            if stream.unprocessed == .http11Required { speakHTTP1(to: connection.endpoint) }
        }
        if news.hasClosed, stream.wasKeptBack { connection.exchange?.noteKeptBack() }
        let readiness = Readiness(
            isReadable: news.isReadable || news.hasClosed, isWritable: news.hasDrained || news.hasClosed,
            peerFinished: false, isBroken: false, hasError: false)
        connection.noticed(readiness)
        upstreamEvent(connection, readiness)
    }

    // MARK: Ends

    /// A stream, or a connection on which there were or would be streams, is over; `closeUpstream` for HTTP/2.
    func closeHTTP2(_ connection: UpstreamConnection) {
        let endpoint = connection.endpoint
        if let carrier = connection.carrier {
            if lingers(connection) { return }
            discardUpstream(connection)
            // A response that waits for a slow client outlives its connection, whose slot may be another's by now.
            guard let session = carrier.session else { return deferLine(endpoint) }
            endpoint.http2Pool.streamClosed(on: carrier.slot)
            if endpoint.http2Pool.streams(on: carrier.slot) == 0 { carrier.idleSinceNs = nowNs }
            noteCongestion(carrier, session)
            if !carrier.isClosed { session.markDirty() }
            return deferLine(endpoint)
        }
        guard connection.session == nil || connection.isMaking else {
            return endUpstreamCarrier(connection, .upstreamClosed)
        }
        connection.session?.closeAll(code: .cancel)
        connection.session?.upstream = nil
        connection.session = nil
        connection.isMaking = false
        discardUpstream(connection)
        endpoint.http2Pool.failed()
        deferLine(endpoint)
    }

    /// Many servers send the end of a stream behind its last byte, in a frame of its own. A reset for each of them
    /// would be unkind, and to let go would free a place in the pool that libnghttp2 still counts: the stream stays for
    /// a moment.
    private func lingers(_ connection: UpstreamConnection) -> Bool {
        guard !connection.isLingering, connection.stream?.lacksOnlyEnd ?? false else { return false }
        connection.isLingering = true
        upstreamDeadlines.arm(connection, .streamEnd, nowNs: nowNs)
        return true
    }

    /// The connection is gone, and every stream with it.
    private func endUpstreamCarrier(_ connection: UpstreamConnection, _ error: ErrorType) {
        guard let session = connection.session else { return }
        if connection.isMaking {
            guard let exchange = connection.exchange else { return closeHTTP2(connection) }
            return connectFailed(exchange, error)
        }
        carrierEnds(connection, session, error)
        connection.session = nil
        if let cause = session.patience.exhausted { logImpatience(cause, backend: connection.endpoint) }
        session.closeAll(code: .internalError, error)
        connection.endpoint.http2Pool.closed(connection.slot)
        serveUpstreamStreams(session)
        session.upstream = nil
        discardUpstream(connection)
        deferLine(connection.endpoint)
    }

    func upstreamCarrierExpired(_ connection: UpstreamConnection, _ kind: UpstreamDeadline) {
        guard let session = connection.session else { return }
        switch kind {
        case .connect:
            guard let exchange = connection.exchange else { return closeHTTP2(connection) }
            connectFailed(exchange, .connectTimeout)
        case .ping:
            let isIdle = session.streams.isEmpty
            if isIdle, nowNs >= connection.idleSinceNs &+ configuration.timeouts.upstreamIdleNs {
                closes(connection, .idleTimeout)
                return leaveConnection(connection, session)
            }
            session.ping()
            connection.history?.pingSent(atNs: stampNs())
            upstreamDeadlines.arm(connection, .pingAnswer, nowNs: nowNs)
        case .pingAnswer:
            logger.warning("a backend's connection is dead", metadata: ["backend": "\(connection.endpoint.name)"])
            endUpstreamCarrier(connection, .upstreamTimeout)
        case .settingsAnswer:
            logger.warning(
                "a backend does not acknowledge SETTINGS", metadata: ["backend": "\(connection.endpoint.name)"])
            closes(connection, .settingsTimeout, .upstreamTimeout)
            session.terminate(.settingsTimeout)
            _ = writeFrames(connection, session)
            endUpstreamCarrier(connection, .upstreamTimeout)
        case .leaving: endUpstreamCarrier(connection, .upstreamClosed)
        case .responseHead, .stall, .idle, .streamEnd: preconditionFailure("\(kind) belongs to a request")
        }
    }

    /// Ends a connection that nobody needs any more, in order. A server that does not read is not waited for long.
    private func leaveConnection(_ connection: UpstreamConnection, _ session: HTTP2Session) {
        _ = connection.endpoint.http2Pool.retired(connection.slot)
        session.terminate(.noError)
        if upstreamDeadlines.armed(connection) != .leaving {
            upstreamDeadlines.arm(connection, .leaving, nowNs: nowNs)
        }
    }

    func flushUpstreamCarrier(_ connection: UpstreamConnection, _ session: HTTP2Session) {
        switch writeFrames(connection, session) {
        case .done: break
        case .blocked: return serveUpstreamStreams(session)
        case .failed: return endUpstreamCarrier(connection, .upstreamReset)
        }
        serveUpstreamStreams(session)
        guard !connection.isClosed, connection.session === session, !session.isMarkedDirty else { return }
        if session.isDead || session.isFinished { return endUpstreamCarrier(connection, .upstreamProtocolError) }
        let isUnused = session.streams.isEmpty && !connection.isMaking
        if isUnused, connection.endpoint.http2Pool.isRetired(connection.slot) { leaveConnection(connection, session) }
    }
}
