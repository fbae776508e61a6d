/// The URL that traces are posted to, made from the base URL of `--otel-endpoint`.
struct CollectorURL: Equatable, CustomStringConvertible {
    /// The whole URL, with the path of the traces signal.
    let description: String
    /// As it was given.
    let base: String

    /// Appends `v1/traces` to the base, whether or not that ends in a slash
    /// (OTLP Exporter specification, "Endpoint URLs for OTLP/HTTP").
    init(base: String) throws(BadValue) {
        guard let separator = base.firstRange(of: "://"), Self.isHTTP(base[..<separator.lowerBound]) else {
            throw BadValue("begin the URL with http:// or https://, such as http://localhost:4318")
        }
        guard base.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw BadValue("a URL has no spaces, control characters or characters beyond ASCII")
        }
        guard !base.contains(where: { "?#".contains($0) }) else {
            throw BadValue("the base URL may have neither a query nor a fragment")
        }
        try Self.checkAuthority(base[separator.upperBound...].prefix { $0 != "/" })
        let trimmed = base.reversed().drop { $0 == "/" }.reversed()
        description = String(trimmed) + "/v1/traces"
        self.base = base
    }

    private static func isHTTP(_ scheme: Substring) -> Bool {
        ["http", "https"].contains(scheme.lowercased())
    }

    private static func checkAuthority(_ authority: Substring) throws(BadValue) {
        guard !authority.contains("@") else {
            throw BadValue("put credentials into OTEL_EXPORTER_OTLP_HEADERS, not into the URL")
        }
        _ = try HostPort(String(authority))
    }
}
