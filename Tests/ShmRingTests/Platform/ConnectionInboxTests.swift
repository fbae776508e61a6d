import CShims
import Glibc
import Testing

@testable import ShmRing

@Suite struct ConnectionInboxTests {
    /// What was read, as a value; a connection is written to and closed.
    private enum Seen: Equatable {
        case connection, nothing, closed, exhausted
    }

    private func take(_ inbox: borrowing ConnectionInbox, writing byte: UInt8? = nil) -> Seen {
        switch inbox.receive() {
        case .connection(let descriptor):
            #expect(fcntl(descriptor.rawValue, F_GETFD) == FD_CLOEXEC)
            if let byte { PassedFile.write(byte, to: descriptor.rawValue) }
            return .connection
        case .nothing: return .nothing
        case .closed: return .closed
        case .exhausted: return .exhausted
        }
    }

    @Test func connectionsArriveInOrderAndThenNothing() throws {
        let pair = try ConnectionInbox.makePair()
        let reader = ConnectionInbox(owning: pair.read)
        let writer = ConnectionInbox(owning: pair.write)
        #expect(take(reader) == .nothing)
        var first = PassedFile()
        var second = PassedFile()
        #expect(writer.send(first.writeDescriptor) == true)
        #expect(writer.send(second.writeDescriptor) == true)
        first.closeWriteEnd()
        second.closeWriteEnd()
        #expect(take(reader, writing: 1) == .connection)
        #expect(first.look() == .byte(1))
        #expect(first.becomesClosed() == true, "one descriptor, and no second one from looking at the packet")
        #expect(second.look() == .open)
        #expect(take(reader, writing: 2) == .connection)
        #expect(second.look() == .byte(2))
        #expect(take(reader) == .nothing)
    }

    @Test func theEndIsSeenBehindWhatWasSent() throws {
        let pair = try ConnectionInbox.makePair()
        let reader = ConnectionInbox(owning: pair.read)
        let file = PassedFile()
        do {
            let writer = ConnectionInbox(owning: pair.write)
            #expect(writer.send(file.writeDescriptor) == true)
        }
        #expect(take(reader) == .connection)
        #expect(take(reader) == .closed)
    }

    @Test func aFullInboxAndOneWithoutReaderRefuse() throws {
        let pair = try ConnectionInbox.makePair()
        let writer = ConnectionInbox(owning: pair.write)
        let file = PassedFile()
        do {
            let reader = ConnectionInbox(owning: pair.read)
            var sent = 0
            while sent < 100_000, writer.send(file.writeDescriptor) { sent += 1 }
            #expect(sent > 16 && sent < 100_000)
            #expect(take(reader) == .connection)
        }
        #expect(writer.send(file.writeDescriptor) == false)
    }

    @Test func packetsThatAreNoConnectionArePassedOver() throws {
        let pair = try ConnectionInbox.makePair()
        let reader = ConnectionInbox(owning: pair.read)
        let writer = ConnectionInbox(owning: pair.write)
        var file = PassedFile()
        RawPacket.send(pair.write, byte: 9, passing: [file.writeDescriptor])
        RawPacket.send(pair.write, byte: 1, passing: [file.writeDescriptor, file.writeDescriptor])
        RawPacket.send(pair.write, byte: 1, passing: [Int32](repeating: file.writeDescriptor, count: 9))
        var byte: UInt8 = 1
        #expect(unsafe Glibc.send(pair.write, &byte, 1, 0) == 1)
        #expect(writer.send(file.writeDescriptor) == true)
        file.closeWriteEnd()
        #expect(take(reader, writing: 5) == .connection)
        #expect(file.look() == .byte(5))
        #expect(file.becomesClosed() == true)
        #expect(take(reader) == .nothing)
    }

    /// In a process of its own, whose table of descriptors can be full.
    @Test func withoutDescriptorsLeftTheConnectionStaysInTheInbox() async {
        await #expect(processExitsWith: .success) {
            let pair = try ConnectionInbox.makePair()
            let reader = ConnectionInbox(owning: pair.read)
            let writer = ConnectionInbox(owning: pair.write)
            let file = PassedFile()
            #expect(writer.send(file.writeDescriptor) == true)
            var limit = rlimit(rlim_cur: 0, rlim_max: 0)
            _ = unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let soft = limit.rlim_cur
            limit.rlim_cur = 0
            _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let isExhausted = if case .exhausted = reader.receive() { true } else { false }
            limit.rlim_cur = soft
            _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            #expect(isExhausted)
            let arrives = if case .connection = reader.receive() { true } else { false }
            #expect(arrives)
        }
    }
}
