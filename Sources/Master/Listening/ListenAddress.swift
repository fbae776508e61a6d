import ShmRing

/// Where to accept clients.
enum ListenAddress: Equatable, CustomStringConvertible {
    /// Every address of the machine, IPv4 and IPv6 where there is IPv6.
    case all(port: UInt16)
    case one(SocketAddress)

    /// - Parameters:
    ///   - ip: What `parsedIP` returned, or nil for all addresses.
    ///   - port: 0 lets the kernel choose.
    init(ip: String?, port: UInt16) {
        self = ip.flatMap { SocketAddress(ip: $0, port: port) }.map(Self.one) ?? .all(port: port)
    }

    /// The value of `--address`: a literal, with or without brackets.
    @Sendable static func parsedIP(_ text: String) throws(BadValue) -> String {
        let ip = text.hasPrefix("[") && text.hasSuffix("]") ? String(text.dropFirst().dropLast()) : text
        guard SocketAddress(ip: ip, port: 0) != nil else {
            throw BadValue("use an IPv4 or IPv6 address of this machine, such as 127.0.0.1 or ::1")
        }
        return ip
    }

    /// Nil for all addresses.
    var ip: String? {
        switch self {
        case .all: nil
        case .one(let address): address.ip
        }
    }

    var port: UInt16 {
        switch self {
        case .all(let port): port
        case .one(let address): address.port ?? 0
        }
    }

    /// The same place with the port that the kernel chose.
    func with(port: UInt16) -> ListenAddress {
        switch self {
        case .all: .all(port: port)
        case .one(let address): ListenAddress(ip: address.ip, port: port)
        }
    }

    var description: String {
        switch self {
        case .all(let port): "*:\(port)"
        case .one(let address): address.description
        }
    }
}
