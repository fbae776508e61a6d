import CShims
import ShmRing

/// The short way of nearly every request: one attempt over an idle connection, answered, and nothing else to tell.
/// Its facts go into the ring as a request record (`shm_layout.h`), of which the exporter makes the tree. Whatever
/// does not fit there, a number of more than 32 bits or a text that is long or not ASCII, goes the general way.
extension Tracer {
    /// - Returns: False when the request is not of this kind, and nothing was done.
    func recordUsual(
        _ exchange: Exchange, _ client: DownstreamConnection, _ endpoints: [Endpoint], _ strategy: StaticString
    ) -> Bool {
        guard isUsual(exchange), let retained = exchange.retained else { return false }
        let endpoint = endpoints[exchange.attempt.endpoint]
        let texts = UsualTexts(
            method: exchange.head.methodText.count, url: url.readableBytes, host: exchange.head.authority.count,
            userAgent: exchange.userAgent.count, peer: client.peer.ip.count, backend: endpoint.name.utf8.count,
            strategy: strategy.utf8CodeUnitCount)
        guard texts.fit, var facts = facts(exchange, client, backendCount: endpoints.count) else { return false }
        texts.note(in: &facts)
        guard var writer = producer.reserveRequest(textBytes: texts.total) else { return true }
        append(exchange, retained.readable, to: &writer)
        writer.append(client.peer.ip)
        writer.append(string: endpoint.name)
        writer.append(strategy)
        guard writer.isASCII else { return false }
        inflight?.publishing(exchange.inflightEntry, producer)
        producer.publish(writer, facts)
        return true
    }

    /// The texts that come from the head.
    private func append(_ exchange: Exchange, _ bytes: Span<UInt8>, to writer: inout RequestWriter) {
        let url = self.url
        writer.append(bytes.extracting(exchange.head.methodText))
        writer.append(url.readable)
        writer.append(bytes.extracting(exchange.head.authority))
        writer.append(bytes.extracting(exchange.userAgent))
    }

    private func isUsual(_ exchange: Exchange) -> Bool {
        exchange.attemptCount == 1 && exchange.attempt.isUsual && exchange.statusSent == exchange.attempt.status
            && exchange.error == nil && !exchange.hadBodyError && !exchange.hasTraceState
            && exchange.retryDenied == nil && exchange.head.headBytes > 0 && !exchange.head.authority.isEmpty
            && producer.treesLost == 0 && !ranAtDrain(exchange)
            && (!exchange.attempt.http2.isUsed || isUsualHTTP2(exchange))
    }

    /// Nobody said GOAWAY, and the client got the bytes that came.
    private func isUsualHTTP2(_ exchange: Exchange) -> Bool {
        let came = exchange.attempt.http2.bodyBytes
        return !exchange.hasFailures && came == exchange.responseRelay.bodyBytes && came == exchange.responseBodyBytes
    }

    /// Everything but the texts; nil when a number has more than 32 bits.
    private func facts(
        _ exchange: Exchange, _ client: DownstreamConnection, backendCount: Int
    ) -> lb_request_header? {
        var facts = lb_request_header()
        var narrow = Narrowing()
        noteIdentity(exchange, in: &facts)
        Self.noteTimes(exchange, &narrow, in: &facts)
        Self.noteBody(exchange, &narrow, in: &facts)
        if exchange.attempt.http2.isUsed { Self.noteStream(exchange.attempt.http2, &narrow, in: &facts) }
        facts.connection_number = exchange.attempt.connection
        if let connectionIDs { Self.noteLink(connectionIDs[exchange.attempt.connection], in: &facts) }
        facts.status = narrow(exchange.statusSent)
        facts.backend_index = narrow(exchange.attempt.endpoint)
        facts.backend_count = narrow(backendCount)
        facts.healthy_count = narrow(exchange.attempt.healthyCount)
        facts.idle_count = narrow(exchange.attempt.idleCount)
        facts.active_count = narrow(exchange.attempt.activeCount)
        facts.peer_port = UInt32(client.peer.port)
        facts.worker = narrow(worker)
        facts.generation = generation
        facts.http_flavor = Self.flavor(exchange, client).rawValue
        return narrow.isLossless ? facts : nil
    }

    private static func noteLink(_ connection: LinkTarget, in facts: inout lb_request_header) {
        facts.link_trace_id_high = connection.traceIDHigh
        facts.link_trace_id_low = connection.traceIDLow
        facts.link_span_id = connection.spanID
    }

    private func noteIdentity(_ exchange: Exchange, in facts: inout lb_request_header) {
        let identity = exchange.identity
        facts.trace_id_high = identity.traceIDHigh
        facts.trace_id_low = identity.traceIDLow
        facts.parent_span_id = identity.parentSpanID
        facts.trace_flags = identity.flags
        facts.base_unix_ns = exchange.startedUnixNs
        facts.root_span_id = identity.rootSpanID
        facts.selection_span_id = newSpanID()
        facts.connection_span_id = newSpanID()
        facts.acquire_span_id = newSpanID()
        facts.request_span_id = exchange.attempt.spanID
        facts.streaming_span_id = newSpanID()
    }

    private static func noteTimes(_ exchange: Exchange, _ narrow: inout Narrowing, in facts: inout lb_request_header) {
        let clock = SpanClock(baseNs: exchange.startedNs)
        let selectionEndNs = exchange.attempt.selectionEndNs
        let requestStartNs = exchange.attempt.requestStartNs
        facts.selection_start_ns = narrow(clock.offsetNs(exchange.attempt.selectionStartNs))
        facts.selection_end_ns = narrow(clock.offsetNs(selectionEndNs))
        facts.connection_end_ns = narrow(clock.offsetNs(exchange.attempt.connectionEndNs, notBefore: selectionEndNs))
        facts.acquire_end_ns = narrow(clock.offsetNs(exchange.attempt.acquireEndNs, notBefore: selectionEndNs))
        facts.request_start_ns = narrow(clock.offsetNs(requestStartNs))
        facts.request_end_ns = narrow(clock.offsetNs(exchange.attempt.requestEndNs, notBefore: requestStartNs))
        facts.streaming_start_ns = narrow(clock.offsetNs(exchange.streamingStartNs))
        facts.end_ns = narrow(clock.offsetNs(exchange.endedNs))
    }

    private static func noteStream(
        _ attempt: HTTP2Attempt, _ narrow: inout Narrowing, in facts: inout lb_request_header
    ) {
        facts.backend_flavor = UInt16(LB_FLAVOR_2)
        facts.request_start_ns = narrow(Int(attempt.streamID))
        facts.request_end_ns = narrow(attempt.streamsActive)
    }

    private static func noteBody(_ exchange: Exchange, _ narrow: inout Narrowing, in facts: inout lb_request_header) {
        if let count = exchange.requestBodyBytes {
            facts.has_request_bytes = 1
            facts.request_bytes = narrow(count)
        }
        facts.response_bytes = narrow(exchange.responseBodyBytes)
        facts.body_bytes = narrow(exchange.responseRelay.bodyBytes)
        switch exchange.response.framing {
        case .none: facts.body_type = UInt8(LB_BODY_NONE)
        case .chunked: facts.body_type = UInt8(LB_BODY_CHUNKED)
        case .untilClose: facts.body_type = UInt8(LB_BODY_UNTIL_CLOSE)
        case .length(let count):
            facts.body_type = UInt8(LB_BODY_LENGTH)
            facts.body_expected_bytes = narrow(count)
        }
    }
}

/// Cuts numbers to 32 bits and remembers whether that lost anything.
private struct Narrowing {
    private var all: UInt64 = 0

    var isLossless: Bool { all >> 32 == 0 }

    mutating func callAsFunction(_ number: UInt64) -> UInt32 {
        all |= number
        return UInt32(truncatingIfNeeded: number)
    }

    /// A negative number is one that does not fit.
    mutating func callAsFunction(_ number: Int) -> UInt32 { self(UInt64(bitPattern: Int64(number))) }
}

/// How long the texts of a request record are, in the order in which they stand there.
private struct UsualTexts {
    let method: Int
    let url: Int
    let host: Int
    let userAgent: Int
    let peer: Int
    let backend: Int
    let strategy: Int

    var total: Int { method + url + host + userAgent + peer + backend + strategy }

    /// None is too long.
    var fit: Bool {
        max(max(method, url, host), max(userAgent, peer), max(backend, strategy)) <= RequestReader.textBytesMax
    }

    func note(in facts: inout lb_request_header) {
        facts.method_bytes = UInt16(truncatingIfNeeded: method)
        facts.url_bytes = UInt16(truncatingIfNeeded: url)
        facts.host_bytes = UInt16(truncatingIfNeeded: host)
        facts.user_agent_bytes = UInt16(truncatingIfNeeded: userAgent)
        facts.peer_ip_bytes = UInt16(truncatingIfNeeded: peer)
        facts.backend_bytes = UInt16(truncatingIfNeeded: backend)
        facts.strategy_bytes = UInt16(truncatingIfNeeded: strategy)
    }
}

extension AttemptRecord {
    /// Answered over an idle connection, and nothing else happened.
    fileprivate var isUsual: Bool {
        (!http2.isUsed || http2.isUsual) && poolOutcome == .reused && connectStartNs == 0 && handshakeStartNs == 0
            && connection > 0
            && endpoint >= 0
            && requestStartNs > 0 && status > 0 && error == nil && retry == nil && markedUnhealthyAfter == 0
    }
}

extension HTTP2Attempt {
    /// On a connection that was there, and its stream was not reset.
    fileprivate var isUsual: Bool { handshakeStartNs == 0 && resetAtNs == 0 && streamID > 0 }
}
