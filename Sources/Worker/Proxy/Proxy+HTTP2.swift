import ShmRing

/// Clients that speak HTTP/2. Their connection is a carrier: it moves frames between its socket and an
/// `HTTP2Session`, and each stream on it is a `DownstreamConnection` of its own, which the rest of the proxy serves
/// like any other. Frames leave at the end of the turn, all of them together (`flushCarriers`).
///
///     reading ─ client preface ─► carrying ─ GOAWAY, error, end ─► closed
///                                    └─ per stream: open ─► serving ─► closed
extension Proxy {
    private static let preface: StaticString = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    private static let readsPerTurn = 16

    /// How far what a client sent first is the connection preface of HTTP/2 (RFC 9113 §3.4).
    enum PrefaceVerdict {
        case none, incomplete, whole
    }

    static func preface(_ bytes: Span<UInt8>) -> PrefaceVerdict {
        let count = min(bytes.count, preface.utf8CodeUnitCount)
        for index in 0..<count where bytes[index] != preface.byte(at: index) { return .none }
        return count == preface.utf8CodeUnitCount ? .whole : .incomplete
    }

    /// The client's preface is here: from now on there are frames.
    func startCarrying(_ connection: DownstreamConnection) {
        let session = HTTP2Session(.server, http2)
        session.downstream = connection
        connection.session = session
        connection.phase = .carrying
        connection.headStartedNs = 0
        downstreamDeadlines.arm(connection, .keepAlive, nowNs: nowNs)
        if isDraining { drainCarrier(connection) }
        readCarrier(connection)
    }

    func carrierEvent(_ connection: DownstreamConnection, _ readiness: Readiness) {
        guard let session = connection.session else { preconditionFailure("a carrier without a session") }
        if readiness.isBroken { return endCarrier(connection) }
        resumeFrames(connection, session)
        // The socket has room again, so the client reads.
        if readiness.isWritable, downstreamDeadlines.armed(connection) == .clientStall {
            downstreamDeadlines.arm(connection, .clientStall, nowNs: nowNs)
        }
        readCarrier(connection)
    }

    /// Reads frames, and serves the streams that they are about.
    private func readCarrier(_ connection: DownstreamConnection) {
        for _ in 0..<Self.readsPerTurn {
            guard let session = connection.session else { return }
            if let input = connection.input, !input.isEmpty {
                session.receive(input.readable)
                input.consume(input.readableBytes)
                connection.releaseEmptyInput(buffers)
                serveStreams(session)
                continueDrain(connection, session)
                continue
            }
            if mustWait(connection, session) { return }
            switch connection.receive(buffers) {
            case .bytes: continue
            case .wouldBlock: return
            case .endOfStream, .failed: return endCarrier(connection)
            }
        }
        deferDownstream(connection)
    }

    /// Tells the proxy what happened to streams.
    private func serveStreams(_ session: HTTP2Session) {
        while let stream = session.nextTouched() {
            let news = stream.news
            stream.news = HTTP2Stream.News()
            if news.hasClosed {
                session.forget(stream)
                streamObjects.forgotten(stream)
            }
            if let client = stream.downstream {
                tell(client, stream, news)
            } else if news.hasArrived {
                let isOver = stream.isClosed || stream.isResetting
                isOver ? tellUnserved(stream, on: session) : openStream(stream, on: session)
            } else if news.hasClosed {
                stream.dropInbound()
            }
        }
    }

    private func tell(_ client: DownstreamConnection, _ stream: HTTP2Stream, _ news: HTTP2Stream.News) {
        let isBroken = news.hasClosed && !stream.hasSentEnd
        // Whoever waits for more from a tunnel must hear that nothing will come.
        let hasLostTunnel = news.hasClosed && stream.isTunnel
        let readiness = Readiness(
            isReadable: news.isReadable || isBroken || hasLostTunnel, isWritable: news.hasDrained || news.hasClosed,
            peerFinished: false, isBroken: isBroken, hasError: isBroken)
        client.noticed(readiness)
        downstreamEvent(client, readiness)
    }

    /// A request on a new stream.
    private func openStream(_ stream: HTTP2Stream, on session: HTTP2Session) {
        guard let carrier = session.downstream else { return }
        carrier.requestCount += 1
        let inserted = downstreams.insert { slot, generation in
            streamObjects.client(stream, slot: slot, generation: generation, peer: carrier.peer)
        }
        guard let client = inserted else { return session.reset(stream, code: .refusedStream) }
        streamCount += 1
        stream.downstream = client
        client.isReadable = true
        client.isSecure = carrier.isSecure
        client.certificateLines = carrier.certificateLines
        if let refusal = stream.refusal {
            _ = client.receive(buffers)
            refuse(client, refusal)
        } else {
            readRequest(client)
        }
        let requestsMax = configuration.limits.requestsPerConnectionMax
        if requestsMax > 0, carrier.requestCount == requestsMax { session.submitGoaway(.noError) }
    }

    /// Writes what the turn has made, all frames of a connection in as few calls as they fit into.
    func flushCarriers() {
        http2.forEachDirty { session in
            if let carrier = session.downstream {
                flushCarrier(carrier, session)
            } else if let carrier = session.upstream {
                flushUpstreamCarrier(carrier, session)
            }
        }
    }

    /// How far frames have got.
    enum FlushOutcome {
        /// The kernel has everything.
        case done
        case blocked
        case failed
    }

    /// The connection takes bytes again. What it holds back itself may have left by now, and more frames still wait in
    /// the session, so whether there is output says nothing.
    func resumeFrames(_ connection: Connection, _ session: HTTP2Session) {
        if session.isBlocked, connection.isWritable { session.markDirty() }
    }

    func writeFrames(_ connection: Connection, _ session: HTTP2Session) -> FlushOutcome {
        let outcome = writeAll(connection, session)
        session.isBlocked = outcome == .blocked
        return outcome
    }

    private func writeAll(_ connection: Connection, _ session: HTTP2Session) -> FlushOutcome {
        var isDry = false
        while !isDry {
            if connection.output == nil {
                isDry = session.write(to: connection.outputBuffer(room: BufferPool.Size.large.rawValue, buffers))
            }
            switch connection.flush(buffers) {
            case .bytes: continue
            case .wouldBlock: return .blocked
            case .failed: return .failed
            case .endOfStream: preconditionFailure("send(2) has no end of stream")
            }
        }
        return .done
    }

    private func flushCarrier(_ connection: DownstreamConnection, _ session: HTTP2Session) {
        switch writeFrames(connection, session) {
        case .done: break
        case .blocked:
            // Nobody waits for a client that has been told to calm down.
            if session.patience.exhausted != nil { return endCarrier(connection) }
            if downstreamDeadlines.armed(connection) != .clientStall {
                downstreamDeadlines.arm(connection, .clientStall, nowNs: nowNs)
            }
            return serveStreams(session)
        case .failed: return endCarrier(connection)
        }
        if downstreamDeadlines.armed(connection) == .clientStall { downstreamDeadlines.disarm(connection) }
        serveStreams(session)
        settleCarrier(connection, session)
    }

    /// Closes a connection that is over, and sees to it that an idle one does not stay for ever, nor one whose header
    /// block does not end.
    private func settleCarrier(_ connection: DownstreamConnection, _ session: HTTP2Session) {
        guard !connection.isClosed, !session.isMarkedDirty else { return }
        if session.isDead || session.isFinished { return endCarrier(connection, isOrderly: true) }
        guard let wanted = carrierDeadline(session) else { return downstreamDeadlines.disarm(connection) }
        if downstreamDeadlines.armed(connection) != wanted {
            let dueNs = wanted == .discard ? session.discardDueNs : nil
            downstreamDeadlines.arm(connection, wanted, nowNs: dueNs.map { $0 &- http2.limits.discardNs } ?? nowNs)
        }
    }

    /// What a connection is waited for; nil while streams have deadlines of their own.
    private func carrierDeadline(_ session: HTTP2Session) -> DownstreamDeadline? {
        if session.isInBlock { return .requestHead }
        if !session.discarding.isEmpty { return .discard }
        return session.streams.isEmpty ? isDraining ? .linger : .keepAlive : nil
    }

    func carrierExpired(_ connection: DownstreamConnection, _ kind: DownstreamDeadline) {
        guard let session = connection.session else { return }
        switch kind {
        case .keepAlive: session.terminate(.noError)
        case .requestHead: session.calm(.unfinishedBlock)
        case .discard: session.endDiscards(nowNs: nowNs)
        default: return endCarrier(connection)
        }
        flushCarrier(connection, session)
    }

    /// The connection is over: whatever its streams were doing ends too.
    /// - Parameter isOrderly: Everything was said; the client gets time to read it.
    func endCarrier(_ connection: DownstreamConnection, isOrderly: Bool = false) {
        guard let session = connection.session else { return }
        connection.session = nil
        if let cause = session.patience.exhausted { logImpatience(cause, client: connection) }
        session.closeAll(code: .cancel)
        serveStreams(session)
        session.downstream = nil
        connection.phase = .reading
        isOrderly ? startLinger(connection) : closeDownstream(connection)
    }

    // MARK: Drain

    /// Says that the connection will end: first without refusing anything, and once that must have arrived, with
    /// the last stream that is served (RFC 9113 §6.8).
    func drainCarrier(_ connection: DownstreamConnection) {
        guard let session = connection.session else { return }
        session.announceShutdown()
        connection.drainStep = .announced
        if session.streams.isEmpty { downstreamDeadlines.arm(connection, .linger, nowNs: nowNs) }
    }

    private func continueDrain(_ connection: DownstreamConnection, _ session: HTTP2Session) {
        guard connection.drainStep == .announced, session.pingAckCount > 0 else { return }
        connection.drainStep = .refusing
        session.submitGoaway(.noError)
    }
}
