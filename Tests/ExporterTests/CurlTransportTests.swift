import Glibc
import Testing

@testable import Exporter

/// The transport against a scripted collector on a loopback socket, both in one thread.
@Suite struct CurlTransportTests {
    /// A collector that reads a whole request and answers what it is told.
    private struct Collector: ~Copyable {
        let listener: Int32
        let port: UInt16

        init() throws {
            let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let result = unsafe withUnsafeMutablePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    unsafe bind(raw, address, length) + listen(raw, 8)
                        + getsockname(raw, address, &length)
                }
            }
            guard raw >= 0, result == 0 else { throw Undecodable(what: "no loopback socket: \(errno)") }
            listener = raw
            port = UInt16(bigEndian: address.sin_port)
        }

        deinit { close(listener) }

        func accepted() -> Int32? {
            let connection = accept(listener, nil, nil)
            guard connection >= 0 else { return nil }
            _ = fcntl(connection, F_SETFL, O_NONBLOCK)
            return connection
        }

        func receive(_ connection: Int32) -> [UInt8] {
            var buffer = [UInt8](repeating: 0, count: 1 << 20)
            let count = unsafe recv(connection, &buffer, buffer.count, 0)
            return Array(buffer.prefix(max(0, count)))
        }

        func answer(_ connection: Int32, _ text: String) {
            let bytes = Array(text.utf8)
            _ = unsafe send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        }
    }

    private func transport(port: UInt16) -> CurlTransport {
        CurlTransport(
            CurlTransport.Settings(
                url: "http://127.0.0.1:\(port)/v1/traces", userAgent: "load_balancer/0.1.0",
                headerLines: ["Content-Type: application/x-protobuf", "X-Key: 7"], timeoutNs: 20_000_000_000,
                slotCount: 2))
    }

    private func body(_ bytes: [UInt8]) -> PostBody {
        var out = ByteWriter()
        out.append(bytes)
        return out.take(replacement: ByteStorage())
    }

    /// Answers every whole request with the next of the answers, until as many posts have ended.
    private func exchange(
        _ transport: CurlTransport, _ collector: borrowing Collector, bodyBytes: Int, answers: [String]
    ) -> (outcomes: [CurlTransport.Outcome], requests: [[UInt8]], connections: Int) {
        var outcomes: [CurlTransport.Outcome] = []
        var requests: [[UInt8]] = []
        var connections: [Int32] = []
        var partial: [UInt8] = []
        while outcomes.count < answers.count {
            if let connection = collector.accepted() { connections.append(connection) }
            for connection in connections { partial += collector.receive(connection) }
            if let end = Self.headEnd(partial), partial.count >= end + bodyBytes, let last = connections.last {
                collector.answer(last, answers[requests.count])
                requests.append(partial)
                partial = []
            }
            let ended = transport.advance()
            outcomes += ended.map(\.outcome)
            if !ended.isEmpty, outcomes.count < answers.count {
                transport.post(body(Array(repeating: 1, count: bodyBytes)), slot: ended[0].slot)
            }
            transport.wait(descriptors: [], timeoutMs: 1)
        }
        for connection in connections { close(connection) }
        return (outcomes, requests, connections.count)
    }

    private static func headEnd(_ bytes: [UInt8]) -> Int? {
        guard bytes.count >= 4 else { return nil }
        return (4...bytes.count).first { Array(bytes[($0 - 4)..<$0]) == [13, 10, 13, 10] }
    }

    private static let fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    @Test func aPostSaysWhatItIs() throws {
        let collector = try Collector()
        let transport = transport(port: collector.port)
        transport.post(body([1, 2, 3]), slot: 0)
        let (outcomes, requests, _) = exchange(transport, collector, bodyBytes: 3, answers: [Self.fine])
        #expect(outcomes == [.answered(.init(status: 200, retryAfterNs: 0, body: Array("{}".utf8), isCut: false))])
        let end = try #require(Self.headEnd(requests[0]))
        let head = String(decoding: requests[0][..<end], as: UTF8.self)
        #expect(head.hasPrefix("POST /v1/traces HTTP/1.1\r\n"))
        #expect(head.contains("\r\nContent-Type: application/x-protobuf\r\n"))
        #expect(head.contains("\r\nUser-Agent: load_balancer/0.1.0\r\n"))
        #expect(head.contains("\r\nX-Key: 7\r\n"))
        #expect(head.contains("\r\nContent-Length: 3\r\n"))
        #expect(Array(requests[0][end...]) == [1, 2, 3])
    }

    @Test func connectionsAreKeptForLargePosts() throws {
        let collector = try Collector()
        let transport = transport(port: collector.port)
        transport.post(body(Array(repeating: 1, count: 3 << 20)), slot: 0)
        let (outcomes, requests, connections) = exchange(
            transport, collector, bodyBytes: 3 << 20, answers: [Self.fine, Self.fine, Self.fine])
        #expect(outcomes.count == 3)
        #expect(connections == 1)
        let head = String(decoding: requests[0].prefix(try #require(Self.headEnd(requests[0]))), as: UTF8.self)
        #expect(!head.contains("Expect"), "libcurl would wait for 100 Continue before a large body")
    }

    @Test func retryAfterIsRead() throws {
        let collector = try Collector()
        let transport = transport(port: collector.port)
        transport.post(body([1]), slot: 1)
        let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
        let (outcomes, _, _) = exchange(transport, collector, bodyBytes: 1, answers: [answer])
        #expect(outcomes == [.answered(.init(status: 503, retryAfterNs: 7_000_000_000, body: [], isCut: false))])
    }

    @Test func longAnswersAreCut() throws {
        let collector = try Collector()
        let transport = transport(port: collector.port)
        transport.post(body([1]), slot: 0)
        let long = String(repeating: "x", count: 100_000)
        let (outcomes, _, _) = exchange(
            transport, collector, bodyBytes: 1, answers: ["HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n\(long)"])
        guard case .answered(let answer) = outcomes[0] else {
            Issue.record("\(outcomes[0])")
            return
        }
        #expect(answer.status == 200)
        #expect(answer.isCut)
        #expect(answer.body.count == CurlTransport.answerBytesMax)
    }

    @Test func redirectsAreNotFollowed() throws {
        let collector = try Collector()
        let transport = transport(port: collector.port)
        transport.post(body([1]), slot: 0)
        let answer =
            "HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:\(collector.port)/x\r\nContent-Length: 0\r\n\r\n"
        let (outcomes, _, _) = exchange(transport, collector, bodyBytes: 1, answers: [answer])
        #expect(outcomes == [.answered(.init(status: 307, retryAfterNs: 0, body: [], isCut: false))])
    }

    @Test(arguments: ["nonsense", "", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
    func answersThatAreNoneAreFailures(answer: String) throws {
        let collector = try Collector()
        let transport = transport(port: collector.port)
        transport.post(body([1]), slot: 0)
        var connection: Int32?
        var outcomes: [CurlTransport.Outcome] = []
        while outcomes.isEmpty {
            if let accepted = collector.accepted() { connection = accepted }
            if let open = connection, Self.headEnd(collector.receive(open)) != nil {
                collector.answer(open, answer)
                close(open)
                connection = nil
            }
            outcomes = transport.advance().map(\.outcome)
            transport.wait(descriptors: [], timeoutMs: 1)
        }
        guard case .failed = outcomes[0] else {
            Issue.record("\(outcomes[0])")
            return
        }
    }

    @Test func aClosedPortIsAFailure() throws {
        let port: UInt16
        do {
            let collector = try Collector()
            port = collector.port
        }
        let transport = transport(port: port)
        transport.post(body([1]), slot: 0)
        var outcomes: [CurlTransport.Outcome] = []
        while outcomes.isEmpty {
            outcomes = transport.advance().map(\.outcome)
            transport.wait(descriptors: [], timeoutMs: 1)
        }
        guard case .failed(let reason) = outcomes[0] else {
            Issue.record("\(outcomes[0])")
            return
        }
        #expect(!reason.isEmpty)
    }
}
