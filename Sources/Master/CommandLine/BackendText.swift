import ShmRing

/// What one `--backend` says, before names are resolved: `[http://]HOST:PORT` or `unix:/PATH`.
struct BackendText: Equatable {
    enum Target: Equatable {
        case address(SocketAddress)
        case name(host: String, port: UInt16)
    }

    let target: Target
    /// As logs and traces name the backend: `host:port`, `[host]:port` or `unix:/path`.
    let name: String
    /// Connections of each worker to it, where a configuration file says so.
    var connectionsMax: Int?

    init(_ text: String) throws(BadValue) {
        target = try text.hasPrefix("unix:") ? Self.unixTarget(text) : Self.networkTarget(text)
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

    private static func networkTarget(_ text: String) throws(BadValue) -> Target {
        let hostPort = try HostPort(try authority(text))
        guard let port = hostPort.port else { throw BadValue("the port is missing; write HOST:PORT") }
        if let address = SocketAddress(ip: hostPort.host, port: port) { return .address(address) }
        return .name(host: hostPort.host, port: port)
    }

    /// What stands behind the scheme, which must be http where there is one.
    private static func authority(_ text: String) throws(BadValue) -> String {
        let scheme = text.firstRange(of: "://").map { text[..<$0.lowerBound].lowercased() }
        var rest = text
        switch scheme {
        case nil: break
        case "http":
            rest = String(text.dropFirst("http://".count))
            if rest.hasSuffix("/") { rest.removeLast() }
        case "https", "h2c": throw BadValue("\(scheme!) backends are not supported yet; use http://HOST:PORT")
        default: throw BadValue("the scheme is unknown; use [http://]HOST:PORT or unix:/PATH")
        }
        guard !rest.contains(where: { "/?#".contains($0) }) else {
            throw BadValue("a backend has no path; write HOST:PORT alone")
        }
        guard !rest.contains("@") else { throw BadValue("a backend has no user; write HOST:PORT alone") }
        return rest
    }
}
