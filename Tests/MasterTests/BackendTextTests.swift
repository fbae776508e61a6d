import ShmRing
import Testing

@testable import Master

@Suite struct BackendTextTests {
    @Test(arguments: [
        ("127.0.0.1:9001", "127.0.0.1:9001"), ("http://127.0.0.1:9001", "127.0.0.1:9001"),
        ("HTTP://127.0.0.1:9001/", "127.0.0.1:9001"), ("[::1]:9001", "[::1]:9001"),
        ("http://[0:0::1]:80", "[::1]:80"), ("unix:/run/app.sock", "unix:/run/app.sock"),
    ])
    func addressesAreUnderstood(text: String, name: String) throws {
        let backend = try BackendText(text)
        #expect(backend.name == name)
        guard case .address(let address) = backend.target else { Issue.record("\(text) is no address"); return }
        #expect(address.description == name)
    }

    @Test(arguments: [("h2c://[::1]:80", true), ("H2C://a:80/", true), ("http://a:80", false), ("a:80", false)])
    func schemeSaysTheVersion(text: String, isHTTP2: Bool) throws {
        #expect(try BackendText(text).isHTTP2 == isHTTP2)
    }

    @Test(arguments: [("localhost:9001", "localhost", 9001), ("http://App_1.example:80", "app_1.example", 80)])
    func namesAreLeftToTheResolver(text: String, host: String, port: UInt16) throws {
        let backend = try BackendText(text)
        #expect(backend.target == .name(host: host, port: port))
        #expect(backend.name == "\(host):\(port)")
    }

    @Test(arguments: [
        ("127.0.0.1", "port is missing"), ("127.0.0.1:", "port must be"), ("127.0.0.1:0", "port must be"),
        ("127.0.0.1:70000", "port must be"), ("127.0.0.1:x", "port must be"), ("127.0.0.1:+80", "port must be"),
        (":9001", "host is missing"), ("", "host is missing"), ("[::1", "closing bracket"), ("[::1:9001", "closing"),
        ("[::1]", "port is missing"), ("[::1]9001", "may follow the bracket"), ("::1:9001", "in brackets"),
        ("[127.0.0.1]:80", "not an IPv6 address"), ("[x:y]:80", "not an IPv6 address"),
        ("300.1.2.3:80", "not an IPv4 address"), ("1.2.3:80", "not an IPv4 address"), ("a b:80", "may only have"),
        ("exämple:80", "may only have"), ("a\nb:80", "may only have"), ("https://127.0.0.1", "port is missing"),
        ("ftp://127.0.0.1:9001", "scheme is unknown"),
        ("http://127.0.0.1:9001/path", "no path"), ("127.0.0.1:9001?x", "no path"), ("user@127.0.0.1:80", "no user"),
        ("unix:", "whole path"), ("unix:relative", "whole path"), ("http://", "host is missing"),
    ])
    func otherTextIsRefusedWithAReason(text: String, reason: String) {
        let error = #expect(throws: BadValue.self) { try BackendText(text) }
        #expect(error?.description.contains(reason) == true, "\(text): \(error?.description ?? "")")
    }

    @Test(arguments: [
        ("https://127.0.0.1:9001", true, "https://127.0.0.1:9001"), ("127.0.0.1:443", true, "https://127.0.0.1:443"),
        ("http://127.0.0.1:443", false, "http://127.0.0.1:443"), ("HTTPS://x:1/", true, "https://x:1"),
        ("http://x:80", false, "x:80"), ("unix:/a:443", false, "unix:/a:443"), ("[::1]:443", true, "https://[::1]:443"),
    ])
    func schemeOrPortSayWhetherItIsTLS(text: String, isSecure: Bool, again: String) throws {
        let backend = try BackendText(text)
        #expect(backend.isSecure == isSecure)
        #expect(backend.text == again)
        #expect(try BackendText(again) == backend)
    }

    @Test func longSocketPathsAreRefused() throws {
        let longest = "unix:/" + String(repeating: "x", count: 106)
        #expect(try BackendText(longest).name == longest)
        #expect(throws: BadValue("the path of a Unix socket has at most 107 bytes")) { try BackendText(longest + "x") }
    }
}
