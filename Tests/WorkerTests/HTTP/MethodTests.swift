import Testing

@testable import Worker

@Suite struct MethodTests {
    private static let known: [(String, Method)] = [
        ("GET", .get), ("HEAD", .head), ("POST", .post), ("PUT", .put), ("DELETE", .delete), ("CONNECT", .connect),
        ("OPTIONS", .options), ("TRACE", .trace), ("PATCH", .patch),
    ]

    @Test func theMethodsOfTheSpecificationAreKnown() {
        for (name, method) in Self.known { #expect(Method.named(Array(name.utf8).span) == method, "\(name)") }
    }

    @Test func namesAreCaseSensitive() {
        for (name, _) in Self.known {
            #expect(Method.named(Array(name.lowercased().utf8).span) == .other, "\(name)")
        }
    }

    @Test(arguments: ["", "GE", "GETS", "PUTT", "PROPFIND", "M-SEARCH", "get", "HEAT", "CONNECTED", "OPTION"])
    func otherMethodsAreOther(name: String) {
        #expect(Method.named(Array(name.utf8).span) == .other)
    }

    /// RFC 9110 §9.2.2. A method that is not known may do anything.
    @Test func onlyIdempotentMethodsMayBeSentTwice() {
        let methods: [Method] = [.get, .head, .post, .put, .delete, .connect, .options, .trace, .patch, .other]
        #expect(methods.filter(\.isIdempotent) == [.get, .head, .put, .delete, .options, .trace])
    }
}
