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
        for byte in [0, 200, ControlMessage.drain.rawValue, 77] as [UInt8] {
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

    @Test func aDescriptorTravelsWithItsMessage() throws {
        let pair = try makePair()
        let master = ControlChannel(owning: pair.0)
        let child = ControlChannel(owning: pair.1)
        var file = PassedFile()
        #expect(master.send(.drain, passing: file.writeDescriptor) == true)
        #expect(master.send(.drainSweeping) == true)
        file.closeWriteEnd()
        var first = child.receiveDelivery()
        #expect(first.reading == .message(.drain))
        if let taken = first.takeDescriptor() {
            #expect(fcntl(taken.rawValue, F_GETFD) == FD_CLOEXEC)
            PassedFile.write(7, to: taken.rawValue)
            #expect(file.look() == .byte(7))
        }
        #expect(file.becomesClosed() == true)
        let firstRest = first.takeDescriptor() == nil
        #expect(firstRest)
        var second = child.receiveDelivery()
        #expect(second.reading == .message(.drainSweeping))
        let secondRest = second.takeDescriptor() == nil
        #expect(secondRest)
    }

    @Test func aDescriptorThatNobodyWantsIsClosed() throws {
        let pair = try makePair()
        let master = ControlChannel(owning: pair.0)
        let child = ControlChannel(owning: pair.1)
        var file = PassedFile()
        master.send(.drain, passing: file.writeDescriptor)
        file.closeWriteEnd()
        #expect(file.look() == .open)
        #expect(child.receive() == .message(.drain))
        #expect(file.becomesClosed() == true)
    }

    @Test func severalDescriptorsAtOnceAreClosedAndTheMessageStays() throws {
        for count in [2, 4, 9] {
            let pair = try makePair()
            let master = FileDescriptor(owning: pair.0)
            let child = ControlChannel(owning: pair.1)
            var file = PassedFile()
            RawPacket.send(
                master.rawValue, byte: ControlMessage.drain.rawValue,
                passing: [Int32](repeating: file.writeDescriptor, count: count))
            file.closeWriteEnd()
            var delivery = child.receiveDelivery()
            #expect(delivery.reading == .message(.drain))
            let deliveryRest = delivery.takeDescriptor() == nil
            #expect(deliveryRest)
            #expect(file.becomesClosed() == true, "\(count) descriptors")
        }
    }
}
