import Testing

@testable import Master

@Suite struct HandoverTests {
    private let sample = Handover(
        current: 7, newest: 8, instanceBytes: Array(0..<16),
        listeners: [.init(ip: "127.0.0.1", port: 0, descriptors: [10, 11], isInherited: true)],
        generations: [
            .init(
                number: 6, isDraining: true, fileText: nil, listeners: [0], board: 12, segment: nil,
                incarnations: [1], children: [.init(worker: 0, pid: 100, control: 13, handle: 14, isReady: true)]),
            .init(
                number: 7, isDraining: false, fileText: "{}", listeners: [0], board: 15,
                segment: .init(memory: 16, wake: 17, writersAliveRead: 18, writersAliveWrite: 19),
                incarnations: [1, 3], children: [.init(worker: nil, pid: 101, control: 20, handle: 21, isReady: false)]),
        ])

    private func failure(_ change: (inout Handover) -> Void) -> StartFailure? {
        var changed = sample
        change(&changed)
        return #expect(throws: StartFailure.self) { try Handover(decoding: changed.encoded()) }
    }

    @Test func theNextImageReadsWhatThisOneWrote() throws {
        #expect(try Handover(decoding: sample.encoded()) == sample)
    }

    @Test func everyDescriptorIsListedOnce() {
        #expect(Set(sample.descriptors) == Set(10...21))
        #expect(sample.descriptors.count == 12)
    }

    @Test func anotherVersionIsRefused() {
        #expect(failure { $0.version = 2 }?.message.contains("version 2") == true)
    }

    @Test func stateThatDoesNotAddUpIsRefused() {
        _ = failure { $0.current = 6 }
        _ = failure { $0.current = 9 }
        _ = failure { $0.generations[0].listeners = [1] }
        _ = failure { $0.generations[0].board = 10 }
        _ = failure { $0.generations[1].number = 6 }
        _ = failure { $0.listeners[0].descriptors = [2, 11] }
        _ = failure { $0.instanceBytes = [] }
    }

    @Test(arguments: ["", "{", "[]", "{\"version\":1}", "\u{0}"])
    func otherBytesAreRefused(text: String) {
        #expect(throws: StartFailure.self) { try Handover(decoding: Array(text.utf8)) }
    }
}
