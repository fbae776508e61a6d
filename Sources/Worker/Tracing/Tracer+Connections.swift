import ShmRing

extension ConnectionTraceIDs {
    init(_ random: inout IDGenerator) {
        self.init(highSeed: random.next(), lowSeed: random.next(), spanSeed: random.next())
    }
}

/// The traces of connections to backends: one tree for each, written when it ends.
///
///     upstream_connection      from the first step to the close; SETTINGS, PINGs and GOAWAYs are its events
///     ├─ dns_resolution        what making it took, as in the tree of the request that made it
///     ├─ tcp_connect
///     ├─ tls_handshake
///     └─ h2_handshake
///
/// Every attempt's span has a link to the connection that it used. A connection is written if a request that is
/// written has used it, or has tried to make it.
extension Tracer {
    private static let connectionBytes = 4096
    private static let noteBytes = 128

    /// What is known of a connection only when it ends.
    struct ConnectionEnd {
        var atNs: UInt64
        var requestsAnswered = 0
        /// Nil before it was settled.
        var isHTTP2: Bool?
        var bytes: (sent: UInt64, received: UInt64)?
    }

    /// The link from an attempt's span to its connection, if it came to one.
    func writeLink(_ attempt: AttemptRecord, _ tree: inout TreeWriter) {
        guard let connectionIDs, attempt.connection > 0 else { return }
        let name = ConnectionName(worker: UInt32(truncatingIfNeeded: worker), number: attempt.connection)
        tree.link(to: connectionIDs[attempt.connection], connection: name)
    }

    func record(_ history: ConnectionHistory, _ endpoint: Endpoint, _ end: ConnectionEnd) {
        guard let connectionIDs, history.isWanted else { return }
        let lost = producer.treesLost
        guard var tree = producer.reserve(bytesMax: Self.bytesMax(history, endpoint)) else { return }
        let target = connectionIDs[history.number]
        let noState: [UInt8] = []
        tree.begin(
            traceID: (high: target.traceIDHigh, low: target.traceIDLow), parentSpanID: 0,
            traceFlags: target.traceFlags, baseUnixNs: history.startedUnixNs, traceState: noState.span)
        writeConnection(history, endpoint, end, id: target.spanID, treesLost: lost, &tree)
        writeMaking(history, endpoint, &tree)
        producer.publish(tree)
    }

    private static func bytesMax(_ history: ConnectionHistory, _ endpoint: Endpoint) -> Int {
        let names = 6 * endpoint.name.utf8.count + (endpoint.hostname == nil ? 0 : endpoint.addresses.count * 48)
        let goaways = min(history.goawayCount, ConnectionHistory.notesMax) * (TreeWriter.stringBytesMax + 16)
        return min(connectionBytes + names + history.notes.count * noteBytes + goaways, 65536)
    }

    private func writeConnection(
        _ history: ConnectionHistory, _ endpoint: Endpoint, _ end: ConnectionEnd, id: UInt64, treesLost: UInt64,
        _ tree: inout TreeWriter
    ) {
        let failure = Self.failure(history)
        tree.beginSpan(
            .upstreamConnection, kind: .internal, id: id, parent: nil, startOffsetNs: 0,
            endOffsetNs: SpanClock(baseNs: history.startedNs).offsetNs(end.atNs),
            status: failure == nil ? .unset : .error)
        writeConnectionID(history.number, &tree)
        tree.attribute(.backendHost, endpoint.name)
        tree.attribute(.backendID, endpoint.index)
        tree.attribute(.lbWorker, worker)
        tree.attribute(.lbGeneration, Int(generation))
        tree.attribute(.connectionTLS, endpoint.isSecure)
        if let isHTTP2 = end.isHTTP2 { tree.attribute(.httpFlavor, isHTTP2 ? "2" : "1.1") }
        writeTotals(history, end, &tree)
        tree.attribute(.connectionCloseReason, (history.closeReason ?? .requestAbandoned).text)
        if treesLost > 0 { tree.attribute(.lbTreesLost, Int(treesLost)) }
        if let failure {
            tree.attribute(.errorType, failure.type)
            if let reason = history.handshake?.failure {
                tree.attribute(.statusMessage, reason)
            } else {
                tree.attribute(.statusMessage, failure.sentence)
            }
        }
        for (note, atNs) in history.notes { writeNote(note, offsetNs: atNs &- history.startedNs, &tree) }
    }

    private func writeTotals(_ history: ConnectionHistory, _ end: ConnectionEnd, _ tree: inout TreeWriter) {
        tree.attribute(.connectionRequestsStarted, history.requestsStarted)
        tree.attribute(.connectionRequestsAnswered, end.requestsAnswered)
        if let bytes = end.bytes {
            tree.attribute(.connectionBytesSent, Int(clamping: bytes.sent))
            tree.attribute(.connectionBytesReceived, Int(clamping: bytes.received))
        }
        if history.settingsCount > 0 { tree.attribute(.h2SettingsCount, history.settingsCount) }
        if history.goawayCount > 0 { tree.attribute(.h2GoawayCount, history.goawayCount) }
        guard history.pings.count > 0 else { return }
        tree.attribute(.h2PingCount, history.pings.count)
        tree.attribute(.h2PingRTTMin, Int(history.pings.minNs / 1000))
        tree.attribute(.h2PingRTTMax, Int(history.pings.maxNs / 1000))
    }

    private func writeNote(_ note: ConnectionHistory.Note, offsetNs: UInt64, _ tree: inout TreeWriter) {
        switch note {
        case .settings(let settings):
            tree.beginEvent(.settingsReceived, offsetNs: offsetNs)
            writeSettings(settings, &tree)
        case .ping(let rttNs):
            tree.beginEvent(.pingAcknowledged, offsetNs: offsetNs)
            tree.attribute(.h2PingRTT, Int(rttNs / 1000))
        case .goaway(let goaway):
            tree.beginEvent(.goawayReceived, offsetNs: offsetNs)
            tree.attribute(.h2ErrorCode, HTTP2ErrorCode.name(goaway.errorCode))
            tree.attribute(.h2LastStreamID, Int(goaway.lastStreamID))
            if !goaway.debugData.isEmpty { tree.attribute(.h2DebugData, text: goaway.debugData.span) }
        }
    }

    private func writeMaking(_ history: ConnectionHistory, _ endpoint: Endpoint, _ tree: inout TreeWriter) {
        let clock = SpanClock(baseNs: history.startedNs)
        let making = history.making
        writeMaking(making, history.handshake, endpoint, parent: 0, clock, &tree)
        if making.http2.handshakeStartNs > 0 { writeHTTP2Handshake(making, parent: 0, clock, &tree) }
    }

    /// What makes the connection's end an error: that it could not be made, that it broke, or that the backend gave it
    /// up with an error code. An end that cost no request is none.
    private static func failure(_ history: ConnectionHistory) -> (type: StaticString, sentence: StaticString)? {
        if let error = history.error { return (error.text, error.sentence) }
        let isRefusal = history.notes.contains {
            if case .goaway(let goaway) = $0.note { goaway.errorCode != HTTP2ErrorCode.noError.rawValue } else { false }
        }
        return isRefusal ? ("goaway", "the backend gave the connection up with an error code") : nil
    }
}
