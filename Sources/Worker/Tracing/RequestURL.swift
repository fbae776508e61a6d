import ShmRing

/// The URL of a request as a trace shows it: scheme, authority, path and query as the client sent them,
/// with the values of signature parameters replaced (OpenTelemetry's semantic conventions for `url.full`).
enum RequestURL {
    /// Bytes of the target, and of the authority, that are looked at: more than a trace keeps of the whole.
    private static let partBytesMax = 2 * TreeWriter.stringBytesMax
    /// Room that `write` needs at most: each parameter may grow by a replaced value.
    static let bytesMax = 8 + partBytesMax + 4 * partBytesMax

    /// - Parameters:
    ///   - bytes: The request's head.
    ///   - isSecure: Whether the client came through TLS.
    ///   - output: Empty, with `bytesMax` free.
    static func write(_ bytes: Span<UInt8>, _ head: RequestHead, isSecure: Bool = false, to output: ByteBuffer) {
        let target = head.target.prefix(partBytesMax)
        if head.targetForm == .absolute {
            writeTarget(bytes, target, to: output)
        } else {
            if !head.authority.isEmpty {
                output.append(isSecure ? "https://" : "http://")
                output.append(bytes.extracting(head.authority.prefix(partBytesMax)))
            }
            if head.targetForm == .origin { writeTarget(bytes, target, to: output) }
        }
    }

    /// The path alone, without the query. Empty where the target has none.
    static func path(_ bytes: Span<UInt8>, _ head: RequestHead) -> Range<Int> {
        guard head.targetForm != .asterisk else { return head.path.prefix(0) }
        let path = head.path.prefix(partBytesMax)
        var end = path.lowerBound
        while end < path.upperBound, bytes[end] != UInt8(ascii: "?") { end += 1 }
        return path.lowerBound..<end
    }

    /// Where the authority of a target in absolute form begins; the target's start when it has none.
    static func authorityStart(_ bytes: Span<UInt8>, _ target: Range<Int>) -> Int {
        var index = target.lowerBound
        while index + 2 < target.upperBound, bytes[index] != UInt8(ascii: "/"), bytes[index] != UInt8(ascii: "?") {
            if bytes[index] == UInt8(ascii: ":"), bytes[index + 1] == UInt8(ascii: "/"),
                bytes[index + 2] == UInt8(ascii: "/")
            {
                return index + 3
            }
            index += 1
        }
        return target.lowerBound
    }

    /// What follows the user information of an authority (RFC 3986 §3.2.1).
    static func withoutUserInformation(_ bytes: Span<UInt8>, _ authority: Range<Int>) -> Range<Int> {
        var start = authority.lowerBound
        for index in authority {
            if bytes[index] == UInt8(ascii: "/") || bytes[index] == UInt8(ascii: "?") { break }
            if bytes[index] == UInt8(ascii: "@") { start = index + 1 }
        }
        return start..<authority.upperBound
    }

    private static func writeTarget(_ bytes: Span<UInt8>, _ target: Range<Int>, to output: ByteBuffer) {
        let whole = bytes.extracting(target)
        guard whole.contains(UInt8(ascii: "?")) else { return output.append(whole) }
        var index = target.lowerBound
        while index < target.upperBound, bytes[index] != UInt8(ascii: "?") { index += 1 }
        output.append(bytes.extracting(target.lowerBound..<index))
        while index < target.upperBound {
            // At "?" or "&": the separator, then one parameter.
            var end = index + 1
            while end < target.upperBound, bytes[end] != UInt8(ascii: "&") { end += 1 }
            writeParameter(bytes, index..<end, to: output)
            index = end
        }
    }

    private static func writeParameter(_ bytes: Span<UInt8>, _ parameter: Range<Int>, to output: ByteBuffer) {
        var equals = parameter.lowerBound
        while equals < parameter.upperBound, bytes[equals] != UInt8(ascii: "=") { equals += 1 }
        let name = (parameter.lowerBound + 1)..<max(equals, parameter.lowerBound + 1)
        guard equals < parameter.upperBound, isSecret(bytes.extracting(name)) else {
            return output.append(bytes.extracting(parameter))
        }
        output.append(bytes.extracting(parameter.lowerBound..<(equals + 1)))
        output.append("REDACTED")
    }

    private static func isSecret(_ name: Span<UInt8>) -> Bool {
        switch name.count {
        case 3: name.matches("sig")
        case 9: name.matches("Signature")
        case 14: name.matches("AWSAccessKeyId")
        case 15: name.matches("X-Amz-Signature")
        case 16: name.matches("X-Goog-Signature") || name.matches("X-Amz-Credential")
        case 20: name.matches("X-Amz-Security-Token")
        default: false
        }
    }
}
