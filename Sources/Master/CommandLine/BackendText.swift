import ShmRing

/// What one `--backend` says, before names are resolved: `[http[s]://]HOST:PORT`, `h2c://HOST:PORT` or `unix:/PATH`.
struct BackendText: Equatable {
    enum Target: Equatable {
        case address(SocketAddress)
        case name(host: String, port: UInt16)

        /// Nil for a Unix socket.
        var port: UInt16? {
            switch self {
            case .address(let address): address.port
            case .name(_, let port): port
            }
        }
    }

    let target: Target
    /// As logs and traces name the backend: `host:port`, `[host]:port` or `unix:/path`.
    let name: String
    /// Connections of each worker to it, where a configuration file says so.
    var connectionsMax: Int?
    /// Whether it is spoken to through TLS.
    let isSecure: Bool
    /// Whether it is spoken to in HTTP/2 without having been asked.
    let isHTTP2: Bool

    private static let httpsPort: UInt16 = 443

    /// What could stand on the command line instead.
    var text: String {
        if isHTTP2 { return "h2c://\(name)" }
        return isSecure ? "https://\(name)" : target.port == Self.httpsPort ? "http://\(name)" : name
    }

    init(_ text: String) throws(BadValue) {
        let scheme = text.firstRange(of: "://").map { text[..<$0.lowerBound].lowercased() }
        target = try text.hasPrefix("unix:") ? Self.unixTarget(text) : Self.networkTarget(text, scheme)
        isSecure = scheme == "https" || (scheme == nil && target.port == Self.httpsPort)
        isHTTP2 = scheme == "h2c"
        name =
            switch target {
            case .address(let address): address.description
            case .name(let host, let port): "\(host):\(port)"
            }
    }

    private static func unixTarget(_ text: String) throws(BadValue) -> Target {
        let path = String(text.dropFirst("unix:".count))
        guard path.hasPrefix("/") else { throw BadValue("write the socket's whole path, such as unix:/run/app.sock") }
        guard let address = SocketAddress(unixPath: path) else {
            throw BadValue("the path of a Unix socket has at most 107 bytes")
        }
        return .address(address)
    }

    private static func networkTarget(_ text: String, _ scheme: String?) throws(BadValue) -> Target {
        let hostPort = try HostPort(try authority(text, scheme))
        guard let port = hostPort.port else { throw BadValue("the port is missing; write HOST:PORT") }
        if let address = SocketAddress(ip: hostPort.host, port: port) { return .address(address) }
        return .name(host: hostPort.host, port: port)
    }

    /// What stands behind the scheme.
    private static func authority(_ text: String, _ scheme: String?) throws(BadValue) -> String {
        var rest = text
        switch scheme {
        case nil: break
        case "http", "https", "h2c":
            rest = String(text.dropFirst(scheme!.count + "://".count))
            if rest.hasSuffix("/") { rest.removeLast() }
        default:
            throw BadValue(
                "the scheme is unknown; use [http://]HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH")
        }
        guard !rest.contains(where: { "/?#".contains($0) }) else {
            throw BadValue("a backend has no path; write HOST:PORT alone")
        }
        guard !rest.contains("@") else { throw BadValue("a backend has no user; write HOST:PORT alone") }
        return rest
    }
}
