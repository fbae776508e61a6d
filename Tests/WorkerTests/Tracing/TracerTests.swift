import ShmRing
import Testing

@testable import Worker

/// A tracer with its ring, and requests as the proxy leaves them behind: facts and times are set by hand,
/// so that what the tree says can be known to the nanosecond.
final class TracerStage {
    static let peer = PeerName(SocketAddress(ip: "192.0.2.7", port: 50123)!)
    /// Every request starts here, monotonic; times in tests count from it.
    static let startNs: UInt64 = 5_000_000
    static let startUnixNs: UInt64 = 1_763_834_445_000_000_000

    let endpoints: [Endpoint]
    let client = DownstreamConnection(descriptor: -1, slot: 0, generation: 0, peer: peer)
    private let segment: SpanSegment
    private let tracer: Tracer
    private var consumer: SegmentConsumer
    private let table = FieldTable()

    /// - Parameter backends: Else one at a literal address and one that has a name.
    init(backends: [WorkerConfiguration.Backend]? = nil, tracesConnections: Bool = false) {
        let first = SocketAddress(ip: "127.0.0.1", port: 9001)!
        let second = [SocketAddress(ip: "192.0.2.20", port: 9002)!, SocketAddress(ip: "2001:db8::20", port: 9002)!]
        let usual = [
            WorkerConfiguration.Backend(name: "127.0.0.1:9001", hostname: nil, addresses: [first]),
            WorkerConfiguration.Backend(name: "b.test:9002", hostname: "b.test", addresses: second),
        ]
        endpoints = (backends ?? usual).enumerated().map {
            Endpoint(index: $0, $1, health: HealthState(), pool: PoolState())
        }
        do {
            segment = try SpanSegment(ringCount: 1, ringBytesMin: 0, generation: 3, masterPID: 1)
        } catch {
            fatalError("\(error)")
        }
        tracer = Tracer(
            producer: segment.producer(slot: 0), worker: 2, generation: 3, tracesConnections: tracesConnections,
            random: IDGenerator(seed: 1))
        consumer = segment.consumer()
    }

    static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// A request that was read, and nothing more.
    func exchange(_ text: String) -> Exchange {
        let bytes = Array(text.utf8)
        let limits = RequestParser.Limits(headBytesMax: 1 << 20, targetBytesMax: 1 << 20, fieldsMax: 128)
        guard case .complete(let head) = RequestParser(limits: limits).parse(bytes.span, into: table) else {
            fatalError("not a head: \(text)")
        }
        let exchange = refused()
        exchange.head = head
        let retained = ByteBuffer(capacity: bytes.count)
        retained.append(bytes)
        exchange.retained = retained
        exchange.identity = tracer.identify(bytes.span, table)
        exchange.userAgent = table.first(.userAgent)?.value ?? 0..<0
        return exchange
    }

    /// A request of which nothing could be read.
    func refused() -> Exchange {
        let exchange = Exchange()
        exchange.identity = tracer.identify()
        exchange.startedNs = Self.startNs
        exchange.startedUnixNs = Self.startUnixNs
        exchange.endedNs = Self.startNs + 1000
        return exchange
    }

    /// What the tracer wrote for the request; nil when it wrote nothing.
    func trace(_ exchange: Exchange) -> TracePicture? {
        tracer.record(exchange, client, endpoints, strategy: "round_robin")
        let found = consumer.next(slot: 0) { TracePicture($0) }
        if let found { consumer.release(through: found.end) }
        return found?.result
    }

    /// What the tracer wrote for a connection to the backend of that index; nil when it wrote nothing.
    func trace(_ history: ConnectionHistory, _ endpoint: Int, _ end: Tracer.ConnectionEnd) -> TracePicture? {
        tracer.record(history, endpoints[endpoint], end)
        let found = consumer.next(slot: 0) { TracePicture($0) }
        if let found { consumer.release(through: found.end) }
        return found?.result
    }

    /// Where links to the connection of that number lead.
    func target(_ number: UInt64) -> LinkTarget? { tracer.connectionIDs?[number] }

    /// Writes without reading.
    func record(_ exchange: Exchange) { tracer.record(exchange, client, endpoints, strategy: "round_robin") }

    func drainStarted(at offset: UInt64) { tracer.drainStarted(atNs: Self.startNs + offset) }

    /// Forgets what waits in the ring.
    func drain() {
        while let (_, end) = consumer.next(slot: 0, { _ in }) { consumer.release(through: end) }
    }

    var counters: SpanCounters { segment.counters }

    // MARK: What happens to a request

    private func at(_ offset: UInt64) -> UInt64 { Self.startNs + offset }

    /// A backend is chosen, from 10 on.
    func select(_ exchange: Exchange, _ endpoint: Int, from offset: UInt64 = 10) {
        exchange.attemptCount += 1
        exchange.attempt = AttemptRecord()
        exchange.attempt.endpoint = endpoint
        exchange.attempt.healthyCount = 2
        exchange.attempt.selectionStartNs = at(offset)
        exchange.attempt.selectionEndNs = at(offset + 10)
    }

    /// A connection is made in the 30 after the choice.
    func connect(_ exchange: Exchange, number: UInt64 = 41) {
        let start = exchange.attempt.selectionEndNs + 10
        exchange.attempt.poolOutcome = .created
        exchange.attempt.activeCount = 1
        exchange.attempt.acquireEndNs = start
        exchange.attempt.connectStartNs = start
        exchange.attempt.connection = number
        exchange.attempt.connectEndNs = start + 20
        exchange.attempt.connectionEndNs = start + 20
    }

    /// An idle connection is taken.
    func reuse(_ exchange: Exchange, number: UInt64 = 41) {
        exchange.attempt.poolOutcome = .reused
        exchange.attempt.idleCount = 3
        exchange.attempt.activeCount = 1
        exchange.attempt.connection = number
        exchange.attempt.acquireEndNs = exchange.attempt.selectionEndNs + 10
        exchange.attempt.connectionEndNs = exchange.attempt.selectionEndNs + 10
    }

    /// The request goes out as soon as there is a connection.
    func send(_ exchange: Exchange) {
        exchange.attempt.requestStartNs = exchange.attempt.connectionEndNs + 10
        exchange.attempt.spanID = 0xA0 + UInt64(exchange.attemptCount)
    }

    /// A head comes back 100 later, then a body.
    func answer(_ exchange: Exchange, status: Int = 200, _ framing: BodyFraming = .length(5), body: String = "hello") {
        let end = exchange.attempt.requestStartNs + 100
        exchange.attempt.requestEndNs = end
        exchange.attempt.status = status
        exchange.statusSent = status
        exchange.streamingStartNs = end
        exchange.response.framing = framing
        exchange.responseRelay.restart(framing, writesChunks: false)
        let relay = RelayStage(exchange.responseRelay)
        relay.source.send(body)
        _ = relay.pump()
        exchange.endedNs = max(exchange.endedNs, end + 100)
    }

    /// The attempt fails, and another one follows.
    func retry(_ exchange: Exchange, _ error: ErrorType, _ reason: RetryPolicy.Reason) {
        fail(exchange, error)
        exchange.attempt.retry = reason
        exchange.keepAttempt()
    }

    /// The attempt fails.
    func fail(_ exchange: Exchange, _ error: ErrorType) {
        exchange.attempt.error = error
        if exchange.attempt.requestStartNs > 0 {
            exchange.attempt.requestEndNs = exchange.attempt.requestStartNs + 50
            exchange.attempt.failedAtNs = exchange.attempt.requestEndNs
        } else {
            exchange.attempt.failedAtNs = exchange.attempt.connectionEndNs
        }
    }

    /// The client gets an answer of our own.
    func refuse(_ exchange: Exchange, _ error: ErrorType, bodyBytes: Int = 20) {
        exchange.error = error
        exchange.statusSent = error.status ?? 0
        exchange.localBodyBytes = bodyBytes
    }

    /// A plain success over a new connection.
    func succeed(_ exchange: Exchange) {
        select(exchange, 1)
        connect(exchange)
        send(exchange)
        answer(exchange)
    }
}

@Suite struct TracerTests {
    private let stage = TracerStage()
    private static let request = "GET /a?sig=s3cret HTTP/1.1\r\nHost: site.test\r\nUser-Agent: curl/8\r\n\r\n"

    /// - Returns: The tree, which must lie within itself.
    private func trace(_ exchange: Exchange) throws -> TracePicture {
        let tree = try #require(stage.trace(exchange))
        #expect(tree.misplaced == [])
        let ids = tree.spans.map(\.id)
        #expect(Set(ids).count == ids.count && !ids.contains(0), "every span has an id of its own")
        return tree
    }

    private func expect(_ tree: TracePicture, _ text: String) {
        let wanted = text.split(separator: "\n").map(String.init)
        for (index, line) in tree.lines.enumerated() where index >= wanted.count || line != wanted[index] {
            #expect(line == (index < wanted.count ? wanted[index] : "(nothing)"), "line \(index + 1)")
        }
        #expect(tree.lines.count == wanted.count)
    }

    @Test func aRequestOverANewConnection() throws {
        let exchange = stage.exchange(Self.request)
        stage.succeed(exchange)
        let tree = try trace(exchange)
        expect(
            tree,
            """
            proxy_request SERVER 0-1000
            | http.method = "GET"
            | http.url = "http://site.test/a?sig=REDACTED"
            | http.flavor = "1.1"
            | http.host = "site.test"
            | http.user_agent = "curl/8"
            | http.status_code = 200
            | backend.id = 1
            | backend.host = "b.test:9002"
            | net.peer.ip = "192.0.2.7"
            | net.peer.port = 50123
            | http.response_content_length = 5
            | lb.worker = 2
            | lb.generation = 3
              backend_selection INTERNAL 10-20
              | lb.strategy = "round_robin"
              | lb.backend_count = 2
              | lb.healthy_count = 2
              | lb.selected_backend = "b.test:9002"
              backend_connection INTERNAL 20-50
              | backend.host = "b.test:9002"
              | connection.from_pool = false
              | connection.id = "w2-41"
                pool_acquire INTERNAL 20-30
                | pool.outcome = "created"
                | pool.idle_count = 0
                | pool.active_count = 1
                dns_resolution INTERNAL 30-30
                | dns.hostname = "b.test"
                | dns.answers = ["192.0.2.20", "2001:db8::20"]
                | dns.cached = true
                tcp_connect INTERNAL 30-50
                | net.peer.name = "b.test"
                | net.peer.port = 9002
                | net.peer.ip = "192.0.2.20"
              backend_request CLIENT 60-160
              | http.method = "GET"
              | http.url = "http://site.test/a?sig=REDACTED"
              | http.flavor = "1.1"
              | http.status_code = 200
              response_streaming INTERNAL 160-1000
              | http.body.type = "content_length"
              | http.body.expected_length = 5
              | http.body.bytes_transferred = 5
              | http.body.had_error = false
            """)
        #expect(tree.spans[0].id == exchange.identity.rootSpanID)
        #expect(tree.span("backend_request")?.id == exchange.attempt.spanID, "the id that went upstream")
        #expect(tree.baseUnixNs == TracerStage.startUnixNs)
        #expect((tree.traceIDHigh, tree.traceIDLow) == (exchange.identity.traceIDHigh, exchange.identity.traceIDLow))
        #expect(tree.parentSpanID == 0)
        #expect(tree.flags == 3)
        #expect(tree.traceState == "")
    }

    @Test func aReusedConnectionRepeatsNoHandshake() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 1)
        stage.reuse(exchange)
        stage.send(exchange)
        stage.answer(exchange, .none, body: "")
        let tree = try trace(exchange)
        #expect(
            tree.spans.map(\.name) == [
                "proxy_request", "backend_selection", "backend_connection", "pool_acquire", "backend_request",
                "response_streaming",
            ])
        #expect(
            tree.span("backend_connection")?.lines == [
                "  backend_connection INTERNAL 20-30", "  | backend.host = \"b.test:9002\"",
                "  | connection.from_pool = true", "  | connection.id = \"w2-41\"",
            ])
        #expect(
            tree.span("pool_acquire")?.lines == [
                "    pool_acquire INTERNAL 20-30", "    | pool.outcome = \"reused\"", "    | pool.idle_count = 3",
                "    | pool.active_count = 1",
            ])
        #expect(
            tree.span("response_streaming")?.lines == [
                "  response_streaming INTERNAL 140-1000", "  | http.body.type = \"none\"",
                "  | http.body.bytes_transferred = 0", "  | http.body.had_error = false",
            ])
    }

    /// A request that is told in the short way; `change` may make it one that is not.
    private func usual(
        _ request: String = Self.request, status: Int = 200, _ framing: BodyFraming = .length(5),
        body: String = "hello", change: (Exchange) -> Void = { _ in }
    ) throws -> TracePicture {
        let exchange = stage.exchange(request)
        stage.select(exchange, 1)
        stage.reuse(exchange)
        stage.send(exchange)
        stage.answer(exchange, status: status, framing, body: body)
        change(exchange)
        return try trace(exchange)
    }

    /// The trace state, which only a tree can hold, is all that is different.
    private static func asTree(_ exchange: Exchange) { exchange.keepTraceState(Array("a=1".utf8)) }

    private static let usualRequests = [
        request, "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n", "GET /a/b?c=d&sig=e HTTP/1.1\r\nHost: site.test\r\n\r\n",
        "GET http://other.test/x?sig=y HTTP/1.1\r\nHost: other.test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: site.test\r\n\r\n", "GET /old HTTP/1.0\r\nHost: site.test\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: site.test\r\nContent-Length: 3\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site.test\r\ntraceparent: 00-\(String(repeating: "4", count: 32))-\(String(repeating: "7", count: 16))-01\r\n\r\n",
    ]

    @Test(arguments: usualRequests)
    func theShortWaySaysWhatATreeSays(request: String) throws {
        let short = try usual(request)
        let tree = try usual(request, change: Self.asTree)
        #expect(short.isRequestRecord && !tree.isRequestRecord)
        #expect(short.lines == tree.lines)
        #expect(short.spans.map(\.parent) == tree.spans.map(\.parent))
        #expect(short.baseUnixNs == tree.baseUnixNs)
        #expect(short.flags == tree.flags)
        #expect(short.parentSpanID == tree.parentSpanID)
    }

    @Test(arguments: [200, 304, 404, 500])
    func theShortWayKnowsEveryStatus(status: Int) throws {
        let short = try usual(status: status)
        #expect(short.isRequestRecord)
        #expect(try short.lines == usual(status: status, change: Self.asTree).lines)
    }

    /// An attempt over an HTTP/2 connection that was there.
    private static func overHTTP2(_ exchange: Exchange) {
        exchange.attempt.http2.isUsed = true
        exchange.attempt.http2.streamID = 41
        exchange.attempt.http2.streamsActive = 7
        exchange.attempt.http2.bodyBytes = exchange.responseRelay.bodyBytes
    }

    @Test(arguments: usualRequests, [200, 404, 500])
    func theShortWayKnowsAttemptsOverHTTP2(request: String, status: Int) throws {
        let short = try usual(request, status: status, change: Self.overHTTP2)
        let tree = try usual(request, status: status) {
            Self.overHTTP2($0)
            Self.asTree($0)
        }
        #expect(short.isRequestRecord && !tree.isRequestRecord)
        #expect(short.span("backend_request_h2") != nil)
        #expect(short.lines == tree.lines)
        #expect(short.spans.map(\.parent) == tree.spans.map(\.parent))
    }

    /// One thing more than the short way can tell of such an attempt.
    private static let unusualOverHTTP2: [@Sendable (Exchange) -> Void] = [
        { $0.attempt.http2.handshakeStartNs = $0.attempt.selectionEndNs },
        { $0.attempt.http2.noteReset(code: 0, isByPeer: true, atNs: $0.attempt.requestStartNs) },
        { $0.attempt.http2.streamID = 0 }, { $0.attempt.http2.bodyBytes += 1 },
        {
            let goaway = HTTP2Session.Goaway(lastStreamID: 41, errorCode: 0, debugData: [])
            $0.noteGoaway(GoawayNote(attempt: 1, streamID: 41, goaway: goaway, atNs: $0.attempt.requestStartNs))
        },
    ]

    @Test(arguments: unusualOverHTTP2.indices)
    func whatIsUnusualOverHTTP2IsATree(index: Int) throws {
        let tree = try usual {
            Self.overHTTP2($0)
            Self.unusualOverHTTP2[index]($0)
        }
        #expect(!tree.isRequestRecord)
    }

    @Test func theShortWayKnowsEveryBody() throws {
        let bodies: [(BodyFraming, String)] = [
            (.none, ""), (.length(5), "hello"), (.chunked, "5\r\nhello\r\n0\r\n\r\n"), (.untilClose, "hello"),
        ]
        for (framing, body) in bodies {
            let short = try usual(Self.request, framing, body: body)
            #expect(short.isRequestRecord)
            #expect(try short.lines == usual(Self.request, framing, body: body, change: Self.asTree).lines)
        }
    }

    /// One thing more than a request record can tell.
    private static let unusual: [@Sendable (Exchange) -> Void] = [
        { $0.error = .clientClosed }, { $0.hadBodyError = true }, { $0.attempt.error = .upstreamReset },
        {
            $0.attempt.markedUnhealthyAfter = 3; $0.attempt.failedAtNs = $0.attempt.requestStartNs
        },
        { $0.retryDenied = (.connectFailed, .responseStarted, $0.endedNs) }, { $0.statusSent = 503 },
        { $0.attempt.poolOutcome = .waited }, { $0.endedNs = $0.startedNs + 1 << 32 },
        { $0.response.framing = .length(1 << 32) }, { $0.attempt.healthyCount = -1 },
    ]

    @Test(arguments: unusual.indices)
    func whatIsUnusualIsATree(index: Int) throws {
        #expect(try !usual(change: Self.unusual[index]).isRequestRecord)
    }

    @Test func aRequestThatRanWhenTheDrainBeganIsATree() throws {
        stage.drainStarted(at: 500)
        let tree = try usual()
        #expect(!tree.isRequestRecord)
        #expect(tree.spans[0].eventTimes == [500])
        #expect(try usual(change: { $0.endedNs = TracerStage.startNs + 499 }).isRequestRecord)
    }

    @Test func textsThatNeedCareAreATree() throws {
        let long = String(repeating: "x", count: 1024)
        for request in [
            "GET /é HTTP/1.1\r\nHost: site.test\r\n\r\n", "GET /\(long) HTTP/1.1\r\nHost: site.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: site.test\r\nUser-Agent: \(long)x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: site.test\r\nUser-Agent: caf\u{E9}\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
        ] {
            #expect(try !usual(request).isRequestRecord, "\(request.prefix(60))")
        }
    }

    @Test func aLiteralAddressIsNotResolved() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.connect(exchange)
        stage.send(exchange)
        stage.answer(exchange)
        let tree = try trace(exchange)
        #expect(tree.span("dns_resolution") == nil)
        #expect(
            tree.span("tcp_connect")?.lines == [
                "    tcp_connect INTERNAL 30-50", "    | net.peer.name = \"127.0.0.1\"", "    | net.peer.port = 9001",
                "    | net.peer.ip = \"127.0.0.1\"",
            ])
    }

    @Test func aUnixSocketHasNoPort() throws {
        let address = try #require(SocketAddress(unixPath: "/run/b.sock"))
        let stage = TracerStage(backends: [
            WorkerConfiguration.Backend(name: "unix:/run/b.sock", hostname: nil, addresses: [address])
        ])
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.connect(exchange)
        stage.send(exchange)
        stage.answer(exchange)
        #expect(stage.trace(exchange)?.span("tcp_connect")?.lines.contains { $0.contains("net.peer.port") } == false)
    }

    @Test func aRefusedConnectionAndTheOneThatFollowed() throws {
        let exchange = stage.exchange("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        stage.select(exchange, 0)
        stage.connect(exchange, number: 41)
        exchange.attempt.markedUnhealthyAfter = 3
        stage.retry(exchange, .connectRefused, .connectFailed)
        stage.select(exchange, 1, from: 60)
        stage.connect(exchange, number: 42)
        stage.send(exchange)
        stage.answer(exchange)
        expect(
            try trace(exchange),
            """
            proxy_request SERVER 0-1000
            | http.method = "GET"
            | http.url = "http://site.test/"
            | http.flavor = "1.1"
            | http.host = "site.test"
            | http.status_code = 200
            | backend.id = 1
            | backend.host = "b.test:9002"
            | net.peer.ip = "192.0.2.7"
            | net.peer.port = 50123
            | http.response_content_length = 5
            | lb.worker = 2
            | lb.generation = 3
            | lb.retry_count = 1
            ! retry_triggered at 50
            ! | retry.reason = "connect_failed"
            ! | retry.attempt = 1
              backend_selection INTERNAL 10-20
              | lb.strategy = "round_robin"
              | lb.backend_count = 2
              | lb.healthy_count = 2
              | lb.selected_backend = "127.0.0.1:9001"
              backend_connection INTERNAL 20-50 ERROR
              | backend.host = "127.0.0.1:9001"
              | connection.from_pool = false
              | connection.id = "w2-41"
              | error.type = "connect_refused"
              | status.message = "the backend refused the connection"
              ! backend_marked_unhealthy at 50
              ! | backend.host = "127.0.0.1:9001"
              ! | failures = 3
              ! retry_triggered at 50
              ! | retry.reason = "connect_failed"
              ! | retry.attempt = 1
                pool_acquire INTERNAL 20-30
                | pool.outcome = "created"
                | pool.idle_count = 0
                | pool.active_count = 1
                tcp_connect INTERNAL 30-50 ERROR
                | net.peer.name = "127.0.0.1"
                | net.peer.port = 9001
                | net.peer.ip = "127.0.0.1"
                | error.type = "connect_refused"
                | status.message = "the backend refused the connection"
              backend_selection INTERNAL 60-70
              | lb.strategy = "round_robin"
              | lb.backend_count = 2
              | lb.healthy_count = 2
              | lb.selected_backend = "b.test:9002"
              backend_connection INTERNAL 70-100
              | backend.host = "b.test:9002"
              | connection.from_pool = false
              | connection.id = "w2-42"
                pool_acquire INTERNAL 70-80
                | pool.outcome = "created"
                | pool.idle_count = 0
                | pool.active_count = 1
                dns_resolution INTERNAL 80-80
                | dns.hostname = "b.test"
                | dns.answers = ["192.0.2.20", "2001:db8::20"]
                | dns.cached = true
                tcp_connect INTERNAL 80-100
                | net.peer.name = "b.test"
                | net.peer.port = 9002
                | net.peer.ip = "192.0.2.20"
              backend_request CLIENT 110-210
              | http.method = "GET"
              | http.url = "http://site.test/"
              | http.flavor = "1.1"
              | http.status_code = 200
              | http.resend_count = 1
              response_streaming INTERNAL 210-1000
              | http.body.type = "content_length"
              | http.body.expected_length = 5
              | http.body.bytes_transferred = 5
              | http.body.had_error = false
            """)
    }

    @Test func aStaleConnectionAndTheFreshOneThatFollowed() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.reuse(exchange)
        stage.send(exchange)
        stage.retry(exchange, .upstreamReset, .connectionClosedBeforeResponse)
        stage.select(exchange, 0, from: 100)
        stage.connect(exchange, number: 42)
        stage.send(exchange)
        stage.answer(exchange)
        let tree = try trace(exchange)
        let attempts = tree.spans("backend_request")
        #expect(attempts.map(\.id) == [0xA1, 0xA2])
        #expect(
            attempts.first?.lines == [
                "  backend_request CLIENT 40-90 ERROR", "  | http.method = \"GET\"",
                "  | http.url = \"http://site.test/a?sig=REDACTED\"", "  | http.flavor = \"1.1\"",
                "  | error.type = \"upstream_reset\"",
                "  | status.message = \"the backend reset the stream or the connection\"",
                "  ! retry_triggered at 90", "  ! | retry.reason = \"connection_closed_before_response\"",
                "  ! | retry.attempt = 1",
            ])
        #expect(attempts.last?.lines.contains("  | http.resend_count = 1") == true)
        #expect(attempts.last?.lines.contains { $0.contains("error.type") } == false)
        #expect(tree.spans("backend_connection").map { $0.lines[0].hasSuffix("ERROR") } == [false, false])
    }

    @Test func aResetBeforeTheHeadThatIsFinal() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.connect(exchange)
        stage.send(exchange)
        stage.fail(exchange, .upstreamReset)
        stage.refuse(exchange, .upstreamReset)
        let tree = try trace(exchange)
        #expect(tree.spans[0].lines[0] == "proxy_request SERVER 0-1000 ERROR")
        #expect(tree.spans[0].lines.contains("| http.status_code = 502"))
        #expect(tree.spans[0].lines.contains("| error.type = \"upstream_reset\""))
        #expect(tree.spans[0].lines.contains("| http.response_content_length = 20"))
        #expect(tree.span("backend_request")?.lines[0] == "  backend_request CLIENT 60-110 ERROR")
        #expect(tree.span("backend_request")?.lines.contains("  | error.type = \"upstream_reset\"") == true)
        #expect(tree.span("backend_request")?.lines.contains { $0.contains("http.status_code") } == false)
        #expect(tree.span("response_streaming") == nil)
    }

    @Test func aRetryThatIsDeniedSaysWhy() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.reuse(exchange)
        stage.send(exchange)
        stage.fail(exchange, .upstreamClosed)
        exchange.retryDenied = (.connectionClosedBeforeResponse, .notIdempotent, TracerStage.startNs + 95)
        stage.refuse(exchange, .upstreamClosed)
        let lines = try trace(exchange).spans[0].lines
        #expect(
            lines.suffix(3) == [
                "! retry_denied at 95", "! | retry.reason = \"connection_closed_before_response\"",
                "! | retry.verdict = \"not_idempotent\"",
            ])
        #expect(!lines.contains { $0.contains("lb.retry_count") })
    }

    @Test(arguments: [ErrorType.upstreamReset, .clientClosed])
    func aBodyThatBreaksOffIsAnError(error: ErrorType) throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.connect(exchange)
        stage.send(exchange)
        stage.answer(exchange, .length(100))
        exchange.hadBodyError = true
        exchange.error = error
        let tree = try trace(exchange)
        #expect(tree.spans[0].lines[0] == "proxy_request SERVER 0-1000 ERROR")
        #expect(tree.spans[0].lines.contains("| http.status_code = 200"))
        #expect(tree.spans[0].lines.contains("| http.response_content_length = 5"))
        #expect(
            tree.span("response_streaming")?.lines == [
                "  response_streaming INTERNAL 160-1000 ERROR", "  | http.body.type = \"content_length\"",
                "  | http.body.expected_length = 100", "  | http.body.bytes_transferred = 5",
                "  | http.body.had_error = true", "  | error.type = \"\(error.text)\"",
                "  | status.message = \"\(error.sentence)\"",
            ])
        #expect(tree.span("backend_request")?.lines[0].hasSuffix("ERROR") == false, "its head was a success")
    }

    @Test func aClientThatLeavesBeforeTheAnswerHasNoStatus() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.connect(exchange)
        stage.send(exchange)
        exchange.attempt.requestEndNs = TracerStage.startNs + 90
        exchange.error = .clientClosed
        let tree = try trace(exchange)
        #expect(tree.spans[0].lines[0].hasSuffix("ERROR"))
        #expect(tree.spans[0].lines.contains("| error.type = \"client_closed\""))
        #expect(!tree.spans[0].lines.contains { $0.contains("http.status_code") })
        #expect(tree.span("response_streaming") == nil)
    }

    @Test func aRefusedRequestHasOneSpan() throws {
        let exchange = stage.refused()
        let retained = ByteBuffer(capacity: 100)
        let line = Array("GET /a HTTP/9.9\r\n".utf8)
        exchange.head = RefusedRequest.retain(line.span, into: retained)
        exchange.retained = retained
        stage.refuse(exchange, .unsupportedVersion)
        expect(
            try trace(exchange),
            """
            proxy_request SERVER 0-1000 ERROR
            | http.method = "GET"
            | http.url = "/a"
            | http.status_code = 505
            | net.peer.ip = "192.0.2.7"
            | net.peer.port = 50123
            | http.response_content_length = 20
            | lb.worker = 2
            | lb.generation = 3
            | error.type = "unsupported_version"
            | status.message = "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here"
            """)
    }

    @Test func aClientsMistakeIsNoErrorOfTheServer() throws {
        let exchange = stage.refused()
        stage.refuse(exchange, .protocolError)
        let lines = try trace(exchange).lines
        #expect(lines[0] == "proxy_request SERVER 0-1000")
        #expect(lines.contains("| error.type = \"protocol_error\""))
    }

    @Test func nobodyToAskIsToldByTheSelection() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, -1)
        exchange.attempt.healthyCount = 0
        exchange.attempt.error = .noHealthyBackend
        stage.refuse(exchange, .noHealthyBackend)
        let tree = try trace(exchange)
        #expect(tree.spans.map(\.name) == ["proxy_request", "backend_selection"])
        #expect(
            tree.spans[1].lines == [
                "  backend_selection INTERNAL 10-20 ERROR", "  | lb.strategy = \"round_robin\"",
                "  | lb.backend_count = 2", "  | lb.healthy_count = 0", "  | error.type = \"no_healthy_backend\"",
                "  | status.message = \"no backend is healthy\"",
            ])
        #expect(!tree.spans[0].lines.contains { $0.contains("backend.") })
    }

    /// `backend.host` is that of the last attempt, also when there was nobody left for another one.
    @Test func theBackendThatFailedLastIsNamed() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.connect(exchange)
        stage.retry(exchange, .connectRefused, .connectFailed)
        stage.select(exchange, -1, from: 60)
        exchange.attempt.error = .connectRefused
        stage.refuse(exchange, .connectRefused)
        let lines = try trace(exchange).spans[0].lines
        #expect(lines.contains("| backend.id = 0"))
        #expect(lines.contains("| backend.host = \"127.0.0.1:9001\""))
    }

    @Test func aFullQueueIsToldByTheAcquisition() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        exchange.attempt.activeCount = 4
        exchange.attempt.error = .poolQueueFull
        stage.refuse(exchange, .poolQueueFull)
        let tree = try trace(exchange)
        #expect(tree.span("backend_connection")?.lines[0].hasSuffix("ERROR") == true)
        #expect(tree.span("backend_connection")?.lines.contains("  | error.type = \"pool_queue_full\"") == true)
        #expect(
            tree.span("pool_acquire")?.lines == [
                "    pool_acquire INTERNAL 20-20 ERROR", "    | pool.idle_count = 0", "    | pool.active_count = 4",
            ])
        #expect(tree.span("backend_request") == nil)
    }

    @Test(arguments: [(200, ""), (302, ""), (404, " ERROR"), (500, " ERROR")])
    func theClientSpanIsAnErrorFrom400On(status: Int, suffix: String) throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.connect(exchange)
        stage.send(exchange)
        stage.answer(exchange, status: status)
        let tree = try trace(exchange)
        #expect(tree.span("backend_request")?.lines[0] == "  backend_request CLIENT 60-160\(suffix)")
        #expect(tree.spans[0].lines[0].hasSuffix("ERROR") == (status >= 500))
    }

    @Test(arguments: [
        (BodyFraming.none, "none"), (.length(3), "content_length"), (.chunked, "chunked"), (.untilClose, "until_close"),
    ])
    func theBodysFramingIsNamed(framing: BodyFraming, name: String) throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        stage.reuse(exchange)
        stage.send(exchange)
        stage.answer(exchange, framing, body: framing == .chunked ? "3\r\nabc\r\n0\r\n\r\n" : "abc")
        let lines = try trace(exchange).span("response_streaming")?.lines ?? []
        #expect(lines.contains("  | http.body.type = \"\(name)\""))
        #expect(lines.contains { $0.contains("expected_length") } == (framing == .length(3)))
        #expect(lines.contains("  | http.body.bytes_transferred = \(framing == .none ? 0 : 3)"))
    }

    @Test func factsOfTheRequestAreTold() throws {
        let exchange = stage.exchange("POST /a HTTP/1.0\r\nContent-Length: 12\r\n\r\n")
        stage.succeed(exchange)
        let lines = try trace(exchange).spans[0].lines
        #expect(lines.contains("| http.flavor = \"1.0\""))
        #expect(lines.contains("| http.request_content_length = 12"))
        #expect(!lines.contains { $0.contains("http.host") || $0.contains("http.user_agent") })
    }

    @Test func theCallersTraceGoesOn() throws {
        let exchange = stage.exchange(
            "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n")
        exchange.keepTraceState(Array("a=1,b=2".utf8))
        stage.succeed(exchange)
        let tree = try trace(exchange)
        #expect((tree.traceIDHigh, tree.traceIDLow) == (0x0AF7_6519_16CD_43DD, 0x8448_EB21_1C80_319C))
        #expect(tree.parentSpanID == 0xB7AD_6B71_6920_3331)
        #expect(tree.traceState == "a=1,b=2")
        #expect(tree.flags == 1)
    }

    @Test func severalCallersAreNone() throws {
        let caller = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
        let exchange = stage.exchange("GET / HTTP/1.1\r\nHost: a\r\n\(caller)\(caller)\r\n")
        #expect(exchange.identity.parentSpanID == 0)
        #expect(exchange.identity.traceIDHigh != 0x0AF7_6519_16CD_43DD)
        #expect(!exchange.identity.keepsTraceState)
    }

    @Test func whoIsNotSampledIsNotWritten() {
        let exchange = stage.exchange(
            "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n\r\n")
        stage.succeed(exchange)
        #expect(stage.trace(exchange) == nil)
    }

    @Test func treesThatWereLostAreToldByTheNext() throws {
        let exchange = stage.exchange(Self.request)
        stage.succeed(exchange)
        for _ in 0..<10_000 where stage.counters.treesDroppedRingFull < 3 { stage.record(exchange) }
        #expect(stage.counters.treesDroppedRingFull == 3)
        stage.drain()
        let next = try #require(stage.trace(exchange))
        #expect(next.spans[0].lines.contains("| lb.trees_lost = 3"))
        let afterwards = try #require(stage.trace(exchange))
        #expect(!afterwards.lines.contains { $0.contains("lb.trees_lost") })
    }

    /// Everything as long as the limits allow: texts are cut and counted, the tree stays whole.
    @Test func aRequestOfGreatLengthKeepsItsTree() throws {
        let long = String(repeating: "x", count: 7000)
        let exchange = stage.exchange(
            "\(long.prefix(64)) /\(long) HTTP/1.1\r\nHost: \(long.prefix(3000))\r\nUser-Agent: \(long)\r\n"
                + "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n")
        exchange.keepTraceState(Array("a=\(long)".utf8))
        for number in 0..<3 {
            stage.select(exchange, 0, from: 10 + UInt64(number) * 100)
            stage.connect(exchange)
            if number < 2 { stage.retry(exchange, .connectRefused, .connectFailed) }
        }
        stage.send(exchange)
        stage.answer(exchange)
        exchange.retryDenied = nil
        let tree = try trace(exchange)
        #expect(tree.spans("backend_connection").count == 3)
        #expect(tree.span("response_streaming") != nil)
        #expect(tree.traceState.utf8.count == 7002)
        let agent = "| http.user_agent = \"\(String(repeating: "x", count: 1024))\""
        #expect(tree.spans[0].lines.contains(agent))
        #expect(stage.counters.valuesCut > 0, "a cut is counted")
        #expect(stage.counters.treesDroppedTooLarge == 0)
    }

    @Test func aLongTraceStateTakesNoSpansRoom() throws {
        let exchange = stage.exchange(Self.request)
        stage.succeed(exchange)
        exchange.keepTraceState(Array("a=\(String(repeating: "x", count: 20_000))".utf8))
        let tree = try trace(exchange)
        #expect(tree.traceState.utf8.count == 20_002)
        #expect(tree.spans.count == 8)
        #expect(stage.counters.valuesCut == 0)
    }

    @Test func longNamesOfBackendsThatFailedKeepTheTree() throws {
        let name = String(repeating: "n", count: 60) + "." + String(repeating: "m", count: 180) + ".test"
        let addresses = try (1...40).map {
            try #require(SocketAddress(ip: "2001:db8:1111:2222:3333:4444:5555:\($0)", port: 80))
        }
        let stage = TracerStage(backends: [
            WorkerConfiguration.Backend(name: "\(name):80", hostname: name, addresses: addresses),
            WorkerConfiguration.Backend(name: "127.0.0.1:9001", hostname: nil, addresses: [addresses[0]]),
        ])
        let exchange = stage.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for number in 0..<2 {
            stage.select(exchange, 0, from: 10 + UInt64(number) * 100)
            stage.connect(exchange)
            stage.retry(exchange, .connectRefused, .connectFailed)
        }
        stage.select(exchange, 1, from: 300)
        stage.connect(exchange)
        stage.send(exchange)
        stage.answer(exchange)
        let tree = try #require(stage.trace(exchange), "the tree was dropped")
        #expect(tree.spans("dns_resolution").map { $0.lines.contains { $0.contains("dns.answers") } } == [true, true])
        #expect(stage.counters.valuesCut == 0)
    }

    /// In a process of its own, because a URL that does not fit its buffer ends it.
    @Test func aTargetOfAnyLengthThatFlagsAllowIsWritten() async {
        await #expect(processExitsWith: .success) {
            let stage = TracerStage()
            let exchange = stage.exchange(
                "GET /?\(String(repeating: "&sig=", count: 50_000)) HTTP/1.1\r\nHost: a\r\n\r\n")
            stage.succeed(exchange)
            precondition(stage.trace(exchange) != nil)
        }
    }

    @Test func timesThatWereNeverSetDoNotTearTheTree() throws {
        let exchange = stage.exchange(Self.request)
        stage.select(exchange, 0)
        exchange.attempt.connectStartNs = exchange.attempt.selectionEndNs
        exchange.attempt.error = .connectFailed
        stage.refuse(exchange, .connectFailed)
        _ = try trace(exchange)
    }
}

@Suite struct SpanClockTests {
    @Test func timesCountFromTheStart() {
        let clock = SpanClock(baseNs: 100)
        #expect(clock.offsetNs(130) == 30)
        #expect(clock.offsetNs(100) == 0)
        #expect(clock.offsetNs(0) == 0, "a time that was never set")
        #expect(clock.offsetNs(0, notBefore: 130) == 30)
        #expect(clock.offsetNs(150, notBefore: 130) == 50)
    }
}
