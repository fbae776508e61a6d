import Testing

@testable import Master

@Suite struct CollectorURLTests {
    @Test(arguments: [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("https://otel.example", "https://otel.example/v1/traces"),
        ("http://[::1]:4318/collect", "http://[::1]:4318/collect/v1/traces"),
        ("http://10.0.0.1/collect//", "http://10.0.0.1/collect/v1/traces"),
    ])
    func theSignalsPathIsAppended(base: String, whole: String) throws {
        #expect(try CollectorURL(base: base).description == whole)
    }

    @Test(arguments: [
        "", "localhost:4318", "ftp://localhost", "http://", "http:///path", "http://localhost:0", "http://a:b:c",
        "http://user:secret@localhost", "http://localhost?x=1", "http://localhost#x", "http://local host",
        "http://localhost/\r\nX: y", "http://localhost:70000",
    ])
    func otherTextIsRefused(base: String) {
        #expect(throws: BadValue.self) { try CollectorURL(base: base) }
    }
}
