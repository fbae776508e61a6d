import Testing

@testable import Worker

@Suite struct WebSocketAcceptTests {
    /// The example of RFC 6455 §1.3.
    @Test func keyIsProven() {
        let accept = WebSocketAccept.value(for: Array("dGhlIHNhbXBsZSBub25jZQ==".utf8))
        #expect(String(decoding: accept, as: UTF8.self) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    }
}
