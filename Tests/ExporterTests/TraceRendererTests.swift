import ShmRing
import Testing

@testable import Exporter

@Suite struct TraceRendererTests {
    private func text(isColoured: Bool = false, _ write: (inout RingProducer) -> Void) throws -> String {
        let record = try SampleTrees.record(write)
        var walk = TreeWalk(naming: .classic)
        let tree = try #require(unsafe TraceTree(record: record.span.bytes, &walk))
        return TraceRenderer(isColoured: isColoured).text(of: tree)
    }

    @Test func aFailoverIsDrawnWhole() throws {
        #expect(try text(SampleTrees.failover) == Self.failover)
    }

    private static let failover = """
        GET http://localhost:8080/users/42?verbose=1  200  3.42 ms
        2026-09-21 14:13:20.123 UTC  trace 4bf92f3577b34da6a3ce929d0e0e4736  parent 00f067aa0ba902b7
        proxy_request server                        +0 ns    3.42 ms  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
        │ http.method                   GET
        │ http.url                      http://localhost:8080/users/42?verbose=1
        │ http.status_code              200
        │ http.host                     localhost:8080
        │ net.peer.ip                   127.0.0.1
        │ net.peer.port                 51234
        │ http.user_agent               Grüße/1.0
        │ http.response_content_length  5000000000
        │ lb.retry_count                1
        │ ◆ retry_triggered +700 µs  retry.reason=connect_failed  retry.attempt=1
        ├─ backend_selection                     +11.0 µs    3.00 µs  ╸
        │    lb.strategy       round_robin
        │    lb.healthy_count  -1
        ├─ backend_connection                    +15.0 µs     675 µs  ━━━━━━━━
        │  │ error.type            connect_refused
        │  │ connection.from_pool  false
        │  │ ✗ connection refused
        │  ├─ dns_resolution                     +20.0 µs     380 µs  ━━━━╸
        │  │    dns.hostname  backend.test
        │  │    dns.answers   [10.0.0.1, 10.0.0.2]
        │  │    dns.cached    true
        │  └─ tcp_connect                         +410 µs     270 µs       ━━━
        │       net.peer.name  backend.test
        │       net.peer.port  9001
        │       ◆ backend_marked_unhealthy +270 µs  failures=3
        │       ✗ error
        └─ backend_request client                 +800 µs    2.60 ms           ╺━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
             http.method       GET
             http.url          http://localhost:8080/users/42?verbose=1
             http.status_code  200
             ↗ trace 00000000000000c100000000000000c2 span 00000000000000c3  connection.id=w2-1041


        """

    @Test func aConnectionHasAHeadlineOfItsOwn() throws {
        let drawn = try text { producer in
            guard var tree = producer.reserve(bytesMax: 4096) else { return }
            tree.begin(traceID: (1, 1), parentSpanID: 0, traceFlags: 3, baseUnixNs: 1, traceState: "".utf8.span)
            tree.beginSpan(
                .upstreamConnection, kind: .internal, id: 1, parent: nil, startOffsetNs: 0, endOffsetNs: 12_300_000_000)
            tree.attribute(.connectionID, "w0-7")
            tree.attribute(.backendHost, "backend.test:9000")
            tree.attribute(.connectionCloseReason, "peer_closed" as StaticString)
            producer.publish(tree)
        }
        #expect(drawn.hasPrefix("connection w0-7 to backend.test:9000  peer_closed  12.3 s\n"))
    }

    @Test func controlCharactersAreShownAndNotObeyed() throws {
        let drawn = try text { producer in
            SampleTrees.single(&producer) { tree in
                tree.attribute(.httpUserAgent, "a\u{1B}[2J\r\nlevel=error\u{202E}\u{85}\u{7F}é")
            }
        }
        #expect(drawn.contains("a\\u{1b}[2J\\u{d}\\u{a}level=error\\u{202e}\\u{85}\\u{7f}é\n"))
        #expect(drawn.unicodeScalars.allSatisfy { $0 == "\n" || $0.properties.generalCategory != .control })
    }

    @Test func coloursAreUsedOnlyOnRequest() throws {
        let plain = try text(isColoured: false, SampleTrees.failover)
        let coloured = try text(isColoured: true, SampleTrees.failover)
        #expect(!plain.contains("\u{1B}"))
        #expect(coloured.contains("\u{1B}[1;31m✗ connection refused\u{1B}[0m"))
        var stripped = ""
        var isInEscape = false
        for scalar in coloured.unicodeScalars {
            if scalar == "\u{1B}" { isInEscape = true }
            if !isInEscape { stripped.unicodeScalars.append(scalar) }
            if scalar == "m" { isInEscape = false }
        }
        #expect(stripped == plain)
    }

    @Test(
        arguments: [
            (0, "0 ns"), (999, "999 ns"), (1_000, "1.00 µs"), (9_994, "9.99 µs"), (9_996, "10.0 µs"),
            (99_940, "99.9 µs"),
            (99_960, "100 µs"), (999_400, "999 µs"), (1_000_000, "1.00 ms"), (3_420_000, "3.42 ms"),
            (5_050_000_000, "5.05 s"), (3_600_000_000_000, "3600 s"),
        ] as [(UInt64, String)])
    func durationsHaveThreeDigitsAndAUnit(ns: UInt64, text: String) {
        #expect(TraceRenderer.duration(ns) == text)
    }

    @Test(
        arguments: [
            (0, "1970-01-01 00:00:00.000 UTC"), (951_782_399_999, "2000-02-28 23:59:59.999 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00.000 UTC"), (1_709_251_199_000, "2024-02-29 23:59:59.000 UTC"),
            (1_790_000_000_123, "2026-09-21 14:13:20.123 UTC"), (4_107_542_400_000, "2100-03-01 00:00:00.000 UTC"),
        ] as [(UInt64, String)])
    func datesFollowTheCalendar(unixMs: UInt64, text: String) {
        #expect(TraceRenderer.date(unixMs * 1_000_000) == text)
    }
}
