import Testing

@testable import Worker

/// The rules of W3C Trace Context (level 2), §3.2 and §4.3.
@Suite struct TraceContextTests {
    private static let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"

    private func read(_ value: String) -> TraceContext? { TraceContext(Array(value.utf8).span) }

    @Test func aTraceparentIsRead() {
        let context = read("00-\(Self.ids)-01")
        #expect(context?.traceIDHigh == 0x0af7_6519_16cd_43dd)
        #expect(context?.traceIDLow == 0x8448_eb21_1c80_319c)
        #expect(context?.parentSpanID == 0xb7ad_6b71_6920_3331)
        #expect(context?.flags == 1)
        #expect(context?.isSampled == true)
    }

    @Test(arguments: [
        ("00", 0, false), ("01", 1, true), ("02", 2, false), ("03", 3, true), ("ff", 3, true), ("fc", 0, false),
    ])
    func flagsThatAreNotDefinedAreCleared(text: String, flags: UInt8, isSampled: Bool) {
        for version in ["00", "01", "cc"] {
            #expect(read("\(version)-\(Self.ids)-\(text)")?.flags == flags)
            #expect(read("\(version)-\(Self.ids)-\(text)")?.isSampled == isSampled)
        }
    }

    @Test(arguments: ["01-\(ids)-01", "cc-\(ids)-01-", "cc-\(ids)-01-what-the-future-brings", "fe-\(ids)-01"])
    func aHigherVersionMayGoOnAfterADash(value: String) {
        #expect(read(value)?.parentSpanID == 0xb7ad_6b71_6920_3331)
    }

    @Test func oneHalfOfTheTraceIDMayBeZero() {
        #expect(read("00-0000000000000000000000000000000a-b7ad6b7169203331-01") != nil)
        #expect(read("00-a0000000000000000000000000000000-b7ad6b7169203331-01") != nil)
    }

    @Test(arguments: [
        "", "00", "00-\(ids)-0", "00-\(ids)-01-", "00-\(ids)-01-x", "00-\(ids)-011", "cc-\(ids)-01.x",
        "cc-\(ids)-011",
        "ff-\(ids)-01", "0-\(ids)-01", "0x-\(ids)-01", "00_\(ids)-01", "00-\(ids)_01", "00-\(ids)-0g",
        " 00-\(ids)-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-101",
        "00-0af7651916cd43dd8448eb211c80319é-7ad6b7169203331-01",
    ])
    func anythingElseIsInvalid(value: String) {
        #expect(read(value) == nil)
    }
}
