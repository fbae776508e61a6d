import Glibc
import ShmRing
import Testing

@testable import Worker

@Suite struct LogSinkTests {
    @Test func aFullPipeIsNotWaitedFor() throws {
        let pipe = try LogPipe()
        let sink = LogSink(pipe.writing)
        var written = 0
        while case .bytes(let count) = sink.write(ByteBuffer.holding("0123456789"), countMax: 10) { written += count }
        #expect(written > 0)
        #expect(pipe.read().utf8.count == written)
        #expect(sink.write(ByteBuffer.holding("again"), countMax: 5) == .bytes(5))
    }

    /// Other processes write to the same description, and may rely on waiting.
    @Test func theInheritedDescriptionStaysBlocking() throws {
        let pipe = try LogPipe()
        let sink = LogSink(pipe.writing)
        #expect(sink.write(ByteBuffer.holding("x"), countMax: 1) == .bytes(1))
        #expect(fcntl(pipe.writing, F_GETFL) & Int32(SOCK_NONBLOCK.rawValue) == 0)
    }

    @Test func aSocketIsWrittenOnlyWhileItHasRoom() {
        let peer = ScriptedPeer(roomBytes: 4096)
        let sink = LogSink(peer.connection.descriptor)
        var result = IOResultKind.written
        for _ in 0..<1000 where result == .written {
            result =
                sink.write(ByteBuffer.holding(String(repeating: "x", count: 1000)), countMax: 1000) == .wouldBlock
                ? .refused : .written
        }
        #expect(result == .refused)
    }

    private enum IOResultKind { case written, refused }
}

/// A small pipe whose writing end waits, as a terminal or a log collector's would. Unsafe: pipe calls.
final class LogPipe {
    let writing: Int32
    private let reading: Int32

    init() throws {
        var ends: [Int32] = [-1, -1]
        try #require(unsafe pipe(&ends) == 0)
        (reading, writing) = (ends[0], ends[1])
        _ = fcntl(reading, F_SETFL, Int32(SOCK_NONBLOCK.rawValue))
        _ = fcntl(reading, 1031 /* F_SETPIPE_SZ */, 4096)
    }

    deinit {
        close(reading)
        close(writing)
    }

    func read(countMax: Int = .max) -> String {
        var all: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while all.count < countMax {
            let count = unsafe Glibc.read(reading, &piece, min(piece.count, countMax - all.count))
            guard count > 0 else { break }
            all += piece.prefix(count)
        }
        return String(decoding: all, as: UTF8.self)
    }
}
