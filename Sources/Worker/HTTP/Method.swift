/// A request method as far as the proxy treats methods differently (RFC 9110 §9).
enum Method: UInt8, Equatable, Sendable {
    case get, head, post, put, delete, connect, options, trace, patch, other

    /// May be sent again when nobody knows whether it was carried out (RFC 9110 §9.2.2).
    var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options, .trace: true
        case .post, .connect, .patch, .other: false
        }
    }

    /// Methods are case-sensitive (RFC 9110 §9.1).
    static func named(_ bytes: Span<UInt8>) -> Method {
        switch bytes.count {
        case 3:
            if bytes.matches("GET") { return .get }
            if bytes.matches("PUT") { return .put }
        case 4:
            if bytes.matches("HEAD") { return .head }
            if bytes.matches("POST") { return .post }
        case 5:
            if bytes.matches("TRACE") { return .trace }
            if bytes.matches("PATCH") { return .patch }
        case 6:
            if bytes.matches("DELETE") { return .delete }
        case 7:
            if bytes.matches("OPTIONS") { return .options }
            if bytes.matches("CONNECT") { return .connect }
        default:
            break
        }
        return .other
    }
}
