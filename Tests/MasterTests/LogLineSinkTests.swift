import CShims
import Glibc
import ShmRing
import Testing

@testable import Master

// Unsafe: system calls on arrays with their own counts.

@Suite struct LogLineSinkTests {
    /// A pipe or socket pair that is written at one end and read at the other.
    private final class Ends {
        let readEnd: Int32
        let writeEnd: Int32

        init(isSocket: Bool) {
            var ends: [Int32] = [-1, -1]
            let result =
                unsafe isSocket ? socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) : pipe(&ends)
            guard result == 0 else { fatalError("\(Errno.last)") }
            readEnd = ends[0]
            writeEnd = ends[1]
        }

        deinit {
            close(readEnd)
            close(writeEnd)
        }

        /// Reads what is there.
        func read() -> String {
            var bytes = [UInt8](repeating: 0, count: 1 << 20)
            _ = fcntl(readEnd, F_SETFL, O_NONBLOCK)
            var all: [UInt8] = []
            while true {
                let count = unsafe Glibc.read(readEnd, &bytes, bytes.count)
                guard count > 0 else { return String(decoding: all, as: UTF8.self) }
                all += bytes.prefix(count)
            }
        }
    }

    @Test(arguments: [false, true])
    func aFullReaderCostsLinesAndNoTime(isSocket: Bool) {
        let ends = Ends(isSocket: isSocket)
        let sink = LogLineSink(ends.writeEnd)
        let line = String(repeating: "x", count: 99) + "\n"
        for _ in 0..<20_000 { sink.write { _ in line } }
        #expect(sink.droppedCount > 0)
        #expect(fcntl(ends.writeEnd, F_GETFL) & O_NONBLOCK == 0, "others write there too, and may want to wait")
        let before = ends.read()
        let lost = sink.droppedCount
        #expect(before.count + Int(lost) * line.count == 20_000 * line.count && before.count >= 10_000)
        sink.write { "after \($0)\n" }
        #expect(ends.read() == "after \(lost)\n")
        #expect(sink.droppedCount == 0)
    }

    @Test func aLineThatWentOutInPartDoesNotRunIntoTheNext() {
        let ends = Ends(isSocket: false)
        let sink = LogLineSink(ends.writeEnd)
        sink.write { _ in String(repeating: "y", count: 1 << 18) + "\n" }
        #expect(sink.droppedCount == 1)
        _ = ends.read()
        sink.write { "next \($0)\n" }
        #expect(ends.read() == "\nnext 1\n")
    }

    @Test func aFileTakesEverything() throws {
        let path = "/tmp/log_line_sink_\(getpid()).log"
        let file = unsafe open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        try #require(file >= 0)
        defer {
            close(file)
            unsafe unlink(path)
        }
        let sink = LogLineSink(file)
        for number in 0..<1000 { sink.write { _ in "line \(number)\n" } }
        #expect(sink.droppedCount == 0)
        #expect(lseek(file, 0, SEEK_END) == 8890)
    }
}
