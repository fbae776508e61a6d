import Glibc
import Testing

@testable import ShmRing

@Suite struct StatusBoardTests {
    @Test func eachWorkerHasAPlaceOfItsOwn() throws {
        let board = try StatusBoard(slotCount: 3)
        board.place(1).turned(17)
        board.place(1).serves(4)
        #expect((0..<3).map(board.turnedNs) == [0, 17, 0])
        #expect((0..<3).map(board.activity) == [0, 4, 0])
        board.clear(1)
        #expect(board.turnedNs(1) == 0)
    }

    @Test func anotherImageSeesTheSameBoard() throws {
        let board = try StatusBoard(slotCount: 2)
        let other = try StatusBoard(adopting: FileDescriptor(owning: dup(board.memoryDescriptor)), slotCount: 2)
        board.place(0).turned(5)
        #expect(other.turnedNs(0) == 5)
    }

    @Test func memoryThatIsTooShortIsRefused() throws {
        let board = try StatusBoard(slotCount: 2)
        let memory = FileDescriptor(owning: dup(board.memoryDescriptor))
        do {
            _ = try StatusBoard(adopting: memory, slotCount: 3)
            Issue.record("three places in memory for two")
        } catch {
            #expect(error == Errno(EINVAL))
        }
    }
}
