import Testing

@testable import Worker

@Suite struct EarlyGoawayTests {
    private static func goaway(_ bytes: [UInt8]) -> HTTP2Session.Goaway? { HTTP2Session.Goaway(first: bytes.span) }

    private static let frame: [UInt8] =
        [0, 0, 11, 7, 0, 0, 0, 0, 0] + [0x80, 0, 0, 5] + [0, 0, 0, 13] + Array("bye".utf8)

    @Test func goawayIsRead() {
        #expect(
            Self.goaway(Self.frame + [0, 0]) == .init(lastStreamID: 5, errorCode: 13, debugData: Array("bye".utf8)))
    }

    @Test func longDebugDataIsCut() {
        let frame = [0, 1, 8, 7, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 8) + [UInt8](repeating: 1, count: 256)
        #expect(Self.goaway(frame + [9])?.debugData.count == 256)
        let long = [0, 2, 8, 7, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 8) + [UInt8](repeating: 1, count: 512)
        #expect(Self.goaway(long)?.debugData.count == 256)
    }

    @Test func anythingElseIsNone() {
        for count in Self.frame.indices { #expect(Self.goaway(Array(Self.frame.prefix(count))) == nil) }
        #expect(Self.goaway([0, 0, 0, 4, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 20)) == nil)
        #expect(Self.goaway([0, 0, 7, 7, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 20)) == nil)
    }
}
