import CShims
import Glibc
import Testing

@testable import ShmRing

@Suite struct ControlChannelTests {
    private func makePair() throws -> (Int32, Int32) { try ControlChannel.makePair() }

    @Test func messagesArriveInOrderAndOneAtATime() throws {
        let pair = try makePair()
        let master = ControlChannel(owning: pair.0)
        let child = ControlChannel(owning: pair.1)
        master.send(.drain)
        master.send(.ready)
        #expect(child.receive() == .message(.drain))
        #expect(child.receive() == .message(.ready))
        #expect(child.receive() == .nothing)
        child.send(.ready)
        #expect(master.receive() == .message(.ready))
    }

    @Test func anEndThatClosesIsNoticedBehindItsMessages() throws {
        let pair = try makePair()
        let child = ControlChannel(owning: pair.1)
        do {
            let master = ControlChannel(owning: pair.0)
            master.send(.drain)
        }
        #expect(child.receive() == .message(.drain))
        #expect(child.receive() == .peerGone)
        #expect(child.receive() == .peerGone)
        child.send(.ready)
    }

    @Test func unknownBytesArePassedOver() throws {
        let pair = try makePair()
        let child = ControlChannel(owning: pair.1)
        let master = FileDescriptor(owning: pair.0)
        for byte in [0, 200, ControlMessage.drain.rawValue, 3] as [UInt8] {
            var byte = byte
            let sent = unsafe send(master.rawValue, &byte, 1, 0)
            #expect(sent == 1)
        }
        #expect(child.receive() == .message(.drain))
        #expect(child.receive() == .nothing)
    }

    @Test func sendingToAPeerThatDoesNotReadNeverWaits() throws {
        let pair = try makePair()
        let master = ControlChannel(owning: pair.0)
        let child = ControlChannel(owning: pair.1)
        for _ in 0..<100_000 { master.send(.drain) }
        #expect(child.receive() == .message(.drain))
    }

    @Test func bothEndsCloseOnExec() throws {
        let pair = try makePair()
        let master = FileDescriptor(owning: pair.0)
        let child = FileDescriptor(owning: pair.1)
        #expect(fcntl(master.rawValue, F_GETFD) == FD_CLOEXEC)
        #expect(fcntl(child.rawValue, F_GETFD) == FD_CLOEXEC)
    }
}
