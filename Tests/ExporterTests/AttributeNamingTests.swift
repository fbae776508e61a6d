import ShmRing
import Testing

@testable import Exporter

@Suite struct AttributeNamingTests {
    private func attributes(
        _ naming: ExporterConfiguration.AttributeNaming, kind: SpanKind, _ fill: (inout TreeWriter) -> Void
    ) throws -> [DecodedRequest.Attribute] {
        let batch = try SampleTrees.batch(OTLPProtobufEncoder.self, naming: naming) { producer in
            SampleTrees.single(kind: kind, &producer, fill)
        }
        return try DecodedRequest(protobuf: batch).spans[0].attributes
    }

    private func texts(_ pairs: KeyValuePairs<String, String>) -> [DecodedRequest.Attribute] {
        pairs.map { DecodedRequest.Attribute(key: $0.key, value: .string($0.value)) }
    }

    @Test func keysAreDistinctAndFitTheirTables() {
        let texts = OutputKey.all.map { "\($0.text)" }
        #expect(Set(texts).count == texts.count)
        #expect(texts.allSatisfy { $0.utf8.count + 3 <= ByteBlock.bytesMax })
    }

    @Test func serversSplitTheURL() throws {
        func url(_ text: String) throws -> [DecodedRequest.Attribute] {
            try attributes(.stable, kind: .server) { $0.attribute(.httpURL, text) }
        }
        #expect(
            try url("http://u.test:81/a/b?x=1&y=?#f")
                == texts(["url.scheme": "http", "url.path": "/a/b", "url.query": "x=1&y=?"]))
        #expect(try url("https://u.test/") == texts(["url.scheme": "https", "url.path": "/"]))
        #expect(try url("http://u.test?q") == texts(["url.scheme": "http", "url.query": "q"]))
        #expect(try url("http://u.test/a#b?c/d") == texts(["url.scheme": "http", "url.path": "/a"]))
        #expect(try url("nonsense") == [])
        #expect(try url(":") == [])
        #expect(try url("") == [])
    }

    @Test func clientsKeepTheURLWhole() throws {
        #expect(
            try attributes(.stable, kind: .client) { $0.attribute(.httpURL, "http://u.test/a?b") }
                == texts(["url.full": "http://u.test/a?b"]))
    }

    @Test func hostIsSplitIntoAddressAndPort() throws {
        func host(_ text: String) throws -> [DecodedRequest.Attribute] {
            try attributes(.stable, kind: .server) { $0.attribute(.httpHost, text) }
        }
        let port = DecodedRequest.Attribute(key: "server.port", value: .int(8080))
        #expect(try host("shop.test:8080") == texts(["server.address": "shop.test"]) + [port])
        #expect(try host("[::1]:8080") == texts(["server.address": "::1"]) + [port])
        #expect(try host("[::1]") == texts(["server.address": "::1"]))
        #expect(try host("shop.test") == texts(["server.address": "shop.test"]))
        #expect(try host("shop.test:99999") == texts(["server.address": "shop.test"]))
        #expect(try host("shop.test:x") == texts(["server.address": "shop.test"]))
    }

    @Test func thePeerOfAServerIsTheClient() throws {
        func fill(_ tree: inout TreeWriter) {
            tree.attribute(.netPeerIP, "192.0.2.1")
            tree.attribute(.netPeerPort, 81)
        }
        #expect(
            try attributes(.stable, kind: .server, fill).map(\.key)
                == ["client.address", "network.peer.address", "network.peer.port"])
        #expect(try attributes(.stable, kind: .internal, fill).map(\.key) == ["network.peer.address", "server.port"])
    }

    @Test func bothNamesGoOutOnRequestAndOwnKeysOnce() throws {
        let keys = try attributes(.both, kind: .server) { tree in
            tree.attribute(.httpMethod, "GET" as StaticString)
            tree.attribute(.lbWorker, 1)
            tree.attribute(.errorType, "client_closed" as StaticString)
            tree.attribute(.httpURL, "http://u.test/a")
        }.map(\.key)
        #expect(
            keys == [
                "http.method", "http.request.method", "lb.worker", "error.type", "http.url", "url.scheme", "url.path",
            ])
    }

    @Test func classicNamesAreTheDefault() throws {
        let keys = try attributes(.classic, kind: .server) { tree in
            for key in AttributeKey.allCases where key != .statusMessage { tree.attribute(key, 1) }
        }.map(\.key)
        #expect(keys == AttributeKey.allCases.filter { $0 != .statusMessage }.map { "\($0.text)" })
    }
}
