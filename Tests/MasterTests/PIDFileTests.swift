import Glibc
import ShmRing
import Testing

@testable import Master

@Suite struct PIDFileTests {
    private let folder = TemporaryFolder()
    private var file: PIDFile { PIDFile(path: folder.file("lb.pid")) }

    @Test func itHoldsTheNumberAndNothingIsLeftBeside() throws {
        folder.write("an older one", to: "lb.pid")
        try file.write(processID: 4711)
        #expect(try SmallFile.text(file.path) == "4711\n")
        #expect(folder.names == ["lb.pid"])
    }

    @Test func itIsRemovedOnlyByTheProcessThatItNames() throws {
        try file.write(processID: 4711)
        file.remove(processID: 471)
        #expect(folder.names == ["lb.pid"])
        file.remove(processID: 4711)
        #expect(folder.names == [])
        file.remove(processID: 4711)
    }

    @Test func whatIsLeftOfADeadProcessIsReplacedAndNoLinkFollowed() throws {
        folder.write("precious", to: "other")
        folder.link("lb.pid.7.new", to: "other")
        try file.write(processID: 7)
        #expect(folder.names == ["lb.pid", "other"])
        #expect(try SmallFile.text(folder.file("other")) == "precious")
    }

    @Test func aFolderThatIsNotThereIsAnError() {
        #expect(throws: Errno(ENOENT)) { try PIDFile(path: "/nowhere/lb.pid").write(processID: 1) }
    }
}
