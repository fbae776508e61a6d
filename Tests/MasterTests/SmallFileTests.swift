import Glibc
import Testing

@testable import Master

@Suite struct SmallFileTests {
    private func message(_ path: String) -> String {
        let error = #expect(throws: BadValue.self) { try SmallFile.text(path) }
        return error?.description ?? ""
    }

    /// Calls `body` with the path of a file that has these bytes.
    private func withFile<Result>(_ bytes: [UInt8], _ body: (String) throws -> Result) throws -> Result {
        let path = "/tmp/load_balancer_small_file.\(getpid()).\(UInt64.random(in: 0...UInt64.max))"
        let file = try unsafe #require(fopen(path, "w"))
        unsafe fwrite(bytes, 1, bytes.count, file)
        unsafe fclose(file)
        defer { unsafe unlink(path) }
        return try body(path)
    }

    @Test func aFileIsRead() throws {
        let text = String(repeating: "ä", count: 100_000)
        #expect(try withFile(Array(text.utf8), SmallFile.text) == text)
    }

    @Test func aMissingFileIsNamedByItsError() {
        #expect(message("/nowhere/lb.json").contains("No such file"))
    }

    @Test(arguments: ["/tmp", "/dev/null", "/dev/zero"])
    func onlyRegularFilesAreRead(path: String) {
        #expect(message(path).contains("regular"))
    }

    @Test func aFileOfAMebibyteIsTheLargest() throws {
        let most = [UInt8](repeating: 0x20, count: SmallFile.bytesMax)
        #expect(try withFile(most, SmallFile.text).utf8.count == SmallFile.bytesMax)
        #expect(try withFile(most + [0x20], message).contains("larger than 1m"))
    }

    @Test func bytesThatAreNoTextAreRefused() throws {
        #expect(try withFile([0x7B, 0xFF, 0x7D], message).contains("UTF-8"))
    }
}
