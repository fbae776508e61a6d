import Testing

@testable import Worker

@Suite struct RequestURLTests {
    private func url(_ target: String, host: String? = "site.test", version: String = "1.1") throws -> String {
        let fields = host.map { "Host: \($0)\r\n" } ?? ""
        let bytes = Array("GET \(target) HTTP/\(version)\r\n\(fields)\r\n".utf8)
        let table = FieldTable()
        guard case .complete(let head) = RequestParser().parse(bytes.span, into: table) else {
            throw NotAHead(target: target)
        }
        let output = ByteBuffer(capacity: 65536)
        RequestURL.write(bytes.span, head, to: output)
        return output.text
    }

    private struct NotAHead: Error { let target: String }

    @Test(arguments: ["/", "/a/b", "/a?b=c&d=e", "/a?", "/?&&", "/%20?%41", "/a?b?c=/d", "/?=x&=y", "//a"])
    func aPathGetsSchemeAndAuthority(target: String) throws {
        #expect(try url(target) == "http://site.test\(target)")
        #expect(try url(target, host: "[2001:db8::1]:8080") == "http://[2001:db8::1]:8080\(target)")
    }

    @Test(arguments: ["http://other.test/a?b=c", "http://other.test", "HTTPS://other.test:8443/?x"])
    func anAbsoluteTargetIsTheURL(target: String) throws {
        #expect(try url(target) == target)
    }

    /// RFC 9112 §3.3: a target of `*` has neither path nor query.
    @Test func anAsteriskIsTheServerItself() throws {
        let bytes = Array("OPTIONS * HTTP/1.1\r\nHost: site.test:81\r\n\r\n".utf8)
        let table = FieldTable()
        guard case .complete(let head) = RequestParser().parse(bytes.span, into: table) else {
            throw NotAHead(target: "*")
        }
        let output = ByteBuffer(capacity: 64)
        RequestURL.write(bytes.span, head, to: output)
        #expect(output.text == "http://site.test:81")
    }

    @Test func withoutAHostOnlyThePathIsKnown() throws {
        #expect(try url("/a", host: nil, version: "1.0") == "/a")
    }

    static let secrets = [
        "AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature", "X-Amz-Signature", "X-Amz-Credential",
        "X-Amz-Security-Token",
    ]

    @Test(arguments: secrets)
    func signaturesAreRedactedWhereverTheyStand(name: String) throws {
        let prefix = "http://site.test/a"
        #expect(try url("/a?\(name)=s3cret") == "\(prefix)?\(name)=REDACTED")
        #expect(try url("/a?b=1&\(name)=s3cret&c=2") == "\(prefix)?b=1&\(name)=REDACTED&c=2")
        #expect(try url("/a?\(name)=s3cret=x?y&\(name)=") == "\(prefix)?\(name)=REDACTED&\(name)=REDACTED")
        #expect(try url("http://other.test/?\(name)=s3cret") == "http://other.test/?\(name)=REDACTED")
    }

    @Test(arguments: ["Sig", "sign", "ig", "signature", "X-Amz-Date", "awsaccesskeyid", "asig", "x-amz-signature"])
    func otherParametersStay(name: String) throws {
        #expect(try url("/a?\(name)=1") == "http://site.test/a?\(name)=1")
    }

    @Test func aSecretsNameAloneIsNoSecret() throws {
        #expect(try url("/a?sig&b=1") == "http://site.test/a?sig&b=1")
        #expect(try url("/sig=1?b") == "http://site.test/sig=1?b")
    }

    @Test func theURLNeverTakesMoreThanThreeTimesTheTarget() throws {
        let target = "/?" + Array(repeating: "sig=", count: 1000).joined(separator: "&")
        #expect(try url(target).utf8.count <= 3 * (target.utf8.count + "site.test".utf8.count))
    }

    @Test(arguments: [
        ("http://a.test/x", 7), ("https://a.test", 8), ("/a", 0), ("/a?b=http://c", 0), ("", 0), ("a", 0), ("*", 0),
        ("://", 3), ("ftp://x@y", 6), ("a.test:80", 0),
    ])
    func theAuthorityStandsBehindTheScheme(target: String, start: Int) {
        let bytes = Array(target.utf8)
        #expect(RequestURL.authorityStart(bytes.span, 0..<bytes.count) == start)
    }

    @Test(arguments: [
        ("a.test/x", "a.test/x"), ("u:p@a.test/x", "a.test/x"), ("u@v@a.test?x@y", "a.test?x@y"),
        ("a.test/@x", "a.test/@x"),
        ("u@", ""), ("", ""),
    ])
    func userInformationIsLeftOut(authority: String, rest: String) {
        let bytes = Array(authority.utf8)
        let range = RequestURL.withoutUserInformation(bytes.span, 0..<bytes.count)
        #expect(String(decoding: bytes[range], as: UTF8.self) == rest)
    }
}
