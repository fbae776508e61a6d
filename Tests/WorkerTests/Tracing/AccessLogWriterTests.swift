import ShmRing
import Testing

@testable import Worker

@Suite struct LogLineTests {
    private func line(_ isJSON: Bool, _ write: (inout LogLine) -> Void) -> String {
        let buffer = ByteBuffer(capacity: 65536)
        var line = LogLine(buffer, isJSON: isJSON)
        write(&line)
        line.end()
        return buffer.text
    }

    @Test func everyKindOfFieldReadsWellInLogfmt() throws {
        let peer = PeerName(try #require(SocketAddress(ip: "192.0.2.7", port: 50123)))
        let text = line(false) {
            $0.time("time", unixNs: 1_763_834_445_000_001_999)
            $0.hex("trace_id", 1, 0xAB)
            $0.peer("client", peer)
            $0.text("method", Array("GET".utf8).span)
            $0.text("error", "client_closed")
            $0.number("status", 200)
        }
        #expect(
            text
                == "time=2025-11-22T18:00:45.000001Z trace_id=000000000000000100000000000000ab client=192.0.2.7:50123"
                + " method=GET error=client_closed status=200\n")
    }

    @Test func everyKindOfFieldReadsWellInJSON() throws {
        let peer = PeerName(try #require(SocketAddress(ip: "2001:db8::1", port: 50123)))
        let text = line(true) {
            $0.time("time", unixNs: 0)
            $0.hex("span_id", 0xAB)
            $0.peer("client", peer)
            $0.text("method", Array("GET".utf8).span)
            $0.text("error", "client_closed")
            $0.number("status", 200)
        }
        #expect(
            text
                == #"{"time":"1970-01-01T00:00:00.000000Z","span_id":"00000000000000ab","client":"[2001:db8::1]:50123","#
                + #""method":"GET","error":"client_closed","status":200}"# + "\n")
    }

    @Test func anEmptyTextIsQuoted() {
        #expect(line(false) { $0.text("target", [UInt8]().span) } == "target=\"\"\n")
    }

    @Test(arguments: ["/a?b", "/a-b_c~d", "GET", "/%20"])
    func plainTextsNeedNoQuotes(text: String) {
        let bytes = Array(text.utf8)
        let isPlain = !text.contains("=")
        #expect(
            line(false) { $0.text("target", bytes.span) } == (isPlain ? "target=\(text)\n" : "target=\"\(text)\"\n"))
    }

    @Test(arguments: [
        "/ status=500", "/\nstatus=500 x=", "\" status=500 \"", "\\", "\\\" status=500", "a=b", "\u{7F}\u{0}\r\t", "é",
        "\\u000a", "x\",\"status\":500,\"y\":\"",
    ])
    func noTextForgesAFieldOrALine(text: String) {
        check(Array(text.utf8))
    }

    @Test func noByteForgesAFieldOrALine() {
        for byte in UInt8.min...UInt8.max { check([UInt8(ascii: "a"), byte, UInt8(ascii: "b")]) }
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func noBytesForgeAFieldOrALine(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let telling = Array("\"\\= \n\r\tu00{},:".utf8)
        let count = Int.random(in: 0...40, using: &random)
        check(
            (0..<count).map { _ in
                Bool.random(using: &random)
                    ? telling.randomElement(using: &random)! : UInt8.random(in: 0...255, using: &random)
            })
    }

    /// Reads the line again as a program would: two fields, the first one exactly these bytes.
    private func check(_ bytes: [UInt8]) {
        for isJSON in [false, true] {
            let text = line(isJSON) {
                $0.text("target", bytes.span)
                $0.number("status", 200)
            }
            let fields = isJSON ? LineReading.json(text) : LineReading.logfmt(text)
            #expect(fields?.map(\.key) == ["target", "status"], "\(text)")
            #expect(fields?.first?.value == bytes, "\(text)")
            #expect(fields?.last?.value == Array("200".utf8))
            let isPrintable = text.utf8.dropLast().allSatisfy { $0 >= 0x20 && $0 < 0x7F }
            #expect(isPrintable && text.hasSuffix("\n"))
        }
    }
}

/// Reads log lines back in the plainest way.
private enum LineReading {
    typealias Field = (key: String, value: [UInt8])

    /// `key=value` pairs with single spaces between them; nil when it is anything else.
    static func logfmt(_ line: String) -> [Field]? {
        var rest = Array(line.utf8)[...]
        var fields: [Field] = []
        while rest.first != 0x0A {
            guard let equals = rest.firstIndex(of: UInt8(ascii: "=")) else { return nil }
            let key = String(decoding: rest[..<equals], as: UTF8.self)
            rest = rest[(equals + 1)...]
            guard let value = rest.first == UInt8(ascii: "\"") ? quoted(&rest) : bare(&rest, until: " \n") else {
                return nil
            }
            fields.append((key, value))
            if rest.first == 0x20 { rest = rest.dropFirst() } else if rest.first != 0x0A { return nil }
        }
        return rest.count == 1 ? fields : nil
    }

    /// One flat object; nil when it is anything else.
    static func json(_ line: String) -> [Field]? {
        var rest = Array(line.utf8)[...]
        guard rest.popFirst() == UInt8(ascii: "{") else { return nil }
        var fields: [Field] = []
        while true {
            guard rest.first == UInt8(ascii: "\""), let key = quoted(&rest), rest.popFirst() == UInt8(ascii: ":"),
                let value = rest.first == UInt8(ascii: "\"") ? quoted(&rest) : bare(&rest, until: ",}")
            else { return nil }
            fields.append((String(decoding: key, as: UTF8.self), value))
            let next = rest.popFirst()
            if next == UInt8(ascii: "}") { return Array(rest) == [0x0A] ? fields : nil }
            guard next == UInt8(ascii: ",") else { return nil }
        }
    }

    /// Characters up to the closing quote, escapes undone.
    private static func quoted(_ rest: inout ArraySlice<UInt8>) -> [UInt8]? {
        rest = rest.dropFirst()
        var value: [UInt8] = []
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\"") { return value }
            guard byte == UInt8(ascii: "\\") else {
                value.append(byte)
                continue
            }
            guard let escaped = rest.popFirst() else { return nil }
            if escaped == UInt8(ascii: "u") {
                guard rest.count >= 4, let code = UInt8(String(decoding: rest.prefix(4), as: UTF8.self), radix: 16)
                else { return nil }
                rest = rest.dropFirst(4)
                value.append(code)
            } else {
                value.append(escaped)
            }
        }
        return nil
    }

    private static func bare(_ rest: inout ArraySlice<UInt8>, until ends: String) -> [UInt8]? {
        let value = Array(rest.prefix { !ends.utf8.contains($0) })
        rest = rest.dropFirst(value.count)
        return value.isEmpty ? nil : value
    }
}

@Suite struct AccessLogWriterTests {
    private func writer(_ peer: ScriptedPeer, isJSON: Bool = false) -> AccessLogWriter {
        AccessLogWriter(WorkerConfiguration.AccessLog(descriptor: peer.connection.descriptor, isJSON: isJSON))
    }

    @Test func oneRequestIsOneLine() throws {
        let stage = TracerStage()
        let exchange = stage.exchange("GET /a?b HTTP/1.1\r\nHost: site.test\r\n\r\n")
        stage.succeed(exchange)
        exchange.startedUnixNs = 0
        let peer = ScriptedPeer()
        let writer = writer(peer)
        writer.record(exchange, stage.client, stage.endpoints)
        writer.flush()
        let identity = exchange.identity
        #expect(
            peer.receivedText
                == "time=1970-01-01T00:00:00.000000Z trace_id=\(TracerStage.hex(identity.traceIDHigh))"
                + "\(TracerStage.hex(identity.traceIDLow)) span_id=\(TracerStage.hex(identity.rootSpanID))"
                + " client=192.0.2.7:50123 method=GET target=/a?b status=200 bytes=5 duration_us=1"
                + " backend=b.test:9002\n")
    }

    @Test func withoutATraceTheLineHasNoIds() {
        let stage = TracerStage()
        let exchange = stage.exchange("GET /a HTTP/1.1\r\nHost: site.test\r\n\r\n")
        stage.succeed(exchange)
        exchange.identity = TraceIdentity()
        let peer = ScriptedPeer()
        let writer = writer(peer, isJSON: true)
        writer.record(exchange, stage.client, stage.endpoints)
        writer.flush()
        let text = peer.receivedText
        #expect(!text.contains("_id"))
        #expect(text.hasPrefix("{\"time\":") && text.hasSuffix("}\n"))
    }

    @Test func aRefusedRequestNamesItsError() {
        let stage = TracerStage()
        let exchange = Exchange()
        exchange.statusSent = 400
        exchange.error = .protocolError
        let peer = ScriptedPeer()
        let writer = writer(peer)
        writer.record(exchange, stage.client, stage.endpoints)
        writer.flush()
        let text = peer.receivedText
        #expect(text.hasSuffix(" client=192.0.2.7:50123 status=400 bytes=0 duration_us=0 error=protocol_error\n"))
    }

    @Test func linesWaitForTheFlush() {
        let stage = TracerStage()
        let exchange = stage.exchange("GET /a HTTP/1.1\r\nHost: site.test\r\n\r\n")
        let peer = ScriptedPeer()
        let writer = writer(peer)
        for _ in 0..<3 { writer.record(exchange, stage.client, stage.endpoints) }
        #expect(peer.receive().isEmpty)
        writer.flush()
        #expect(peer.receive().filter { $0 == 0x0A }.count == 3)
    }

    /// A reader that comes and goes sees some lines and misses others, but never a part of one.
    @Test(arguments: 0..<10 as Range<UInt64>)
    func linesAreWrittenWholeOrNotAtAll(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let stage = TracerStage()
        let pipe = try LogPipe()
        let writer = AccessLogWriter(WorkerConfiguration.AccessLog(descriptor: pipe.writing, isJSON: false))
        var received = ""
        for number in 0..<150 {
            // Each of these takes two bytes of a line, so that some lines are more than a pipe takes at once.
            let padding = String(repeating: "\"", count: Int.random(in: 0...4000, using: &random))
            let exchange = stage.exchange("GET /n\(number)/\(padding) HTTP/1.1\r\nHost: site.test\r\n\r\n")
            exchange.statusSent = 200
            writer.record(exchange, stage.client, stage.endpoints)
            if Bool.random(using: &random) { writer.flush() }
            if Bool.random(using: &random) { received += pipe.read(countMax: Int.random(in: 1...6000, using: &random)) }
        }
        for _ in 0..<100 {
            writer.flush()
            received += pipe.read()
        }
        #expect(received.hasSuffix("\n"))
        let lines = received.split(separator: "\n")
        let areWhole = lines.allSatisfy { $0.hasPrefix("time=") && $0.hasSuffix(" status=200 bytes=0 duration_us=1") }
        #expect(areWhole)
        #expect(lines.count > 10)
        let numbers = lines.compactMap { $0.split(separator: "/n").last?.split(separator: "/").first }.compactMap {
            Int($0)
        }
        #expect(numbers.count == lines.count)
        #expect(numbers == Array(Set(numbers)).sorted(), "each once, in order")
    }

    @Test func aLogThatNobodyReadsHoldsNothingUp() {
        let stage = TracerStage()
        let target = String(repeating: "\u{22}", count: 3000)
        let exchange = stage.exchange("GET /\(target) HTTP/1.1\r\nHost: site.test\r\n\r\n")
        let peer = ScriptedPeer(roomBytes: 4096)
        let writer = writer(peer)
        for _ in 0..<200 { writer.record(exchange, stage.client, stage.endpoints) }
        writer.flush()
        _ = peer.receive()
        let last = stage.exchange("GET /last HTTP/1.1\r\nHost: site.test\r\n\r\n")
        writer.record(last, stage.client, stage.endpoints)
        writer.flush()
        #expect(peer.receivedText.contains("target=/last "))
    }
}
