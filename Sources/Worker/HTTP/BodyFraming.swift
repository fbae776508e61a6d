/// How a message says where its body ends (RFC 9112 §6.3).
enum BodyFraming: Equatable, Sendable {
    case none
    case length(Int)
    case chunked
    /// Responses only: the body ends with the connection.
    case untilClose

    /// How many bytes are body as they stand: `.max` until the connection closes, -1 when there is framing between
    /// them.
    var rawBytesMax: Int {
        switch self {
        case .none: 0
        case .length(let count): count
        case .chunked: -1
        case .untilClose: .max
        }
    }
}
