import CShims
import Glibc

@testable import ShmRing

// Descriptors that can be recognised on the other side of a socket.

/// A pipe whose write end is passed on: what is written there tells that the very same file arrived.
struct PassedFile: ~Copyable {
    let readEnd: FileDescriptor
    let writeDescriptor: Int32
    private var writeEnd: FileDescriptor?

    init() {
        var ends: [Int32] = [-1, -1]
        guard unsafe lb_make_pipe(&ends) == 0 else { fatalError("pipe2") }
        readEnd = FileDescriptor(owning: ends[0])
        writeDescriptor = ends[1]
        writeEnd = FileDescriptor(owning: ends[1])
    }

    mutating func closeWriteEnd() {
        writeEnd = nil
    }

    enum State: Equatable {
        case byte(UInt8)
        case open
        case closed
    }

    /// What the read end says: a byte that came, nothing yet, or that no write end is open anywhere.
    func look() -> State {
        var byte: UInt8 = 0
        let count = unsafe read(readEnd.rawValue, &byte, 1)
        if count == 1 { return .byte(byte) }
        return count == 0 ? .closed : .open
    }

    /// Whether the last write end closes. A process that another test is just starting may still have its copy.
    func becomesClosed() -> Bool {
        for _ in 0..<500 {
            if look() == .closed { return true }
            var entry = pollfd(fd: readEnd.rawValue, events: Int16(POLLIN), revents: 0)
            _ = unsafe poll(&entry, 1, 10)
        }
        return false
    }

    static func write(_ byte: UInt8, to descriptor: Int32) {
        var byte = byte
        _ = unsafe Glibc.write(descriptor, &byte, 1)
    }
}
