import Glibc
import ShmRing

@testable import Exporter

/// Real records for the tests, written by the product's own writer into a ring of their own.
enum SampleTrees {
    static let traceID: (high: UInt64, low: UInt64) = (0x4bf9_2f35_77b3_4da6, 0xa3ce_929d_0e0e_4736)
    static let baseUnixNs: UInt64 = 1_790_000_000_123_456_789

    /// Makes a segment whose ring 0 holds what `write` published, and hands over its consumer.
    static func consumer(
        ringCount: Int = 1, ringBytes: Int = 1 << 20, _ write: (inout RingProducer) -> Void
    ) throws -> SegmentConsumer {
        let segment = try SpanSegment(ringCount: ringCount, ringBytesMin: ringBytes, generation: 1, masterPID: getpid())
        var producer = segment.producer(slot: 0)
        write(&producer)
        return segment.consumer()
    }

    /// The bytes of the one record that `write` publishes.
    static func record(_ write: (inout RingProducer) -> Void) throws -> [UInt8] {
        var consumer = try consumer(write)
        guard let (bytes, _) = consumer.next(slot: 0, { copy(of: $0) }) else { throw Missing.record }
        return bytes
    }

    enum Missing: Error { case record }

    static func copy(of record: RawSpan) -> [UInt8] {
        record.byteOffsets.map { RecordBytes.byte(record, at: $0) }
    }

    /// One span with the attributes that `fill` gives it.
    static func single(
        kind: SpanKind = .server, _ producer: inout RingProducer, _ fill: (inout TreeWriter) -> Void
    ) {
        guard var tree = producer.reserve(bytesMax: 32768) else { return }
        tree.begin(traceID: traceID, parentSpanID: 0, traceFlags: 1, baseUnixNs: baseUnixNs, traceState: "".utf8.span)
        tree.beginSpan(.proxyRequest, kind: kind, id: 1, parent: nil, startOffsetNs: 0, endOffsetNs: 1)
        fill(&tree)
        producer.publish(tree)
    }

    /// The connection that the second attempt of `failover` used.
    static let linked = LinkTarget(traceIDHigh: 0xc1, traceIDLow: 0xc2, spanID: 0xc3)

    /// A request whose first backend refused and whose second answered: every kind of span, value, event and link.
    static func failover(_ producer: inout RingProducer) {
        guard var tree = producer.reserve(bytesMax: 32768) else { return }
        tree.begin(
            traceID: traceID, parentSpanID: 0x00f0_67aa_0ba9_02b7, traceFlags: 3, baseUnixNs: baseUnixNs,
            traceState: "vendor=opaque,other=1".utf8.span)
        tree.beginSpan(
            .proxyRequest, kind: .server, id: 0xa1, parent: nil, startOffsetNs: 0, endOffsetNs: 3_420_000)
        tree.attribute(.httpMethod, "GET" as StaticString)
        tree.attribute(.httpURL, "http://localhost:8080/users/42?verbose=1")
        tree.attribute(.httpStatusCode, 200)
        tree.attribute(.httpHost, "localhost:8080")
        tree.attribute(.netPeerIP, "127.0.0.1")
        tree.attribute(.netPeerPort, 51234)
        tree.attribute(.httpUserAgent, "Grüße/1.0")
        tree.attribute(.httpResponseContentLength, 5_000_000_000)
        tree.attribute(.lbRetryCount, 1)
        tree.beginEvent(.retryTriggered, offsetNs: 700_000)
        tree.attribute(.retryReason, "connect_failed" as StaticString)
        tree.attribute(.retryAttempt, 1)
        tree.beginSpan(
            .backendSelection, kind: .internal, id: 0xa2, parent: 0, startOffsetNs: 11_000, endOffsetNs: 14_000)
        tree.attribute(.lbStrategy, "round_robin" as StaticString)
        tree.attribute(.lbHealthyCount, -1)
        let connection = tree.beginSpan(
            .backendConnection, kind: .internal, id: 0xa3, parent: 0, startOffsetNs: 15_000, endOffsetNs: 690_000,
            status: .error)
        tree.attribute(.statusMessage, "connection refused")
        tree.attribute(.errorType, "connect_refused" as StaticString)
        tree.attribute(.connectionFromPool, false)
        tree.beginSpan(
            .dnsResolution, kind: .internal, id: 0xa4, parent: connection, startOffsetNs: 20_000, endOffsetNs: 400_000)
        tree.attribute(.dnsHostname, "backend.test")
        tree.attribute(.dnsAnswers, ["10.0.0.1", "10.0.0.2"])
        tree.attribute(.dnsCached, true)
        tree.beginSpan(
            .tcpConnect, kind: .internal, id: 0xa5, parent: connection, startOffsetNs: 410_000, endOffsetNs: 680_000,
            status: .error)
        tree.attribute(.netPeerName, "backend.test")
        tree.attribute(.netPeerPort, 9001)
        tree.beginEvent(.backendMarkedUnhealthy, offsetNs: 680_000)
        tree.attribute(.failures, 3)
        tree.beginSpan(
            .backendRequest, kind: .client, id: 0xa6, parent: 0, startOffsetNs: 800_000, endOffsetNs: 3_400_000)
        tree.attribute(.httpMethod, "GET" as StaticString)
        tree.attribute(.httpURL, "http://localhost:8080/users/42?verbose=1")
        tree.attribute(.httpStatusCode, 200)
        tree.link(to: linked, connection: ConnectionName(worker: 2, number: 1041))
        producer.publish(tree)
    }

    static let resource = ExporterConfiguration.Resource(
        attributes: [("service.name", .string("shop \"A\"")), ("process.pid", .int(4711))],
        scopeName: "load_balancer", scopeVersion: "0.1.0")

    /// One batch with every tree that `write` publishes.
    static func batch<Format: OTLPFormat & ~Copyable>(
        _ format: Format.Type, naming: ExporterConfiguration.AttributeNaming = .classic, ringBytes: Int = 1 << 20,
        _ write: (inout RingProducer) -> Void
    ) throws -> [UInt8] {
        var batcher = SpanBatcher<Format>(
            consumer: try consumer(ringBytes: ringBytes, write), resource: resource, naming: naming,
            limits: BatchState.Limits(bytesMax: 64 << 20))
        _ = batcher.fill(nowNs: 0)
        return batcher.close(nowNs: 0).body?.bytes ?? []
    }
}

/// A generator whose every run can be repeated (SplitMix64, Steele et al., 2014).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
