/// Writes the heads that go out, straight from the bytes that came in: fields that stay are copied in
/// runs as long as nothing between them was left out.
///
/// Hop-by-hop fields, and those that a Connection field names, end here (RFC 9110 §7.6.1); the framing is
/// always written anew. Everything else keeps its bytes and its order.
enum HeadWriter {
    /// What a request's head needs beyond what the client sent.
    struct RequestAdditions {
        /// Host for an HTTP/1.0 request that has none.
        var fallbackHost: String
        /// Nil when tracing is off, and the client's trace fields go through untouched.
        var identity: TraceIdentity?
        var attemptSpanID: UInt64 = 0
        /// The client came through TLS.
        var isSecure = false
        /// Field lines that say who the client is by its certificate; empty where nobody is asked for one, and what
        /// the client says of it goes through untouched.
        var certificateLines: [UInt8] = []
    }

    /// Room that `writeRequest` needs at most.
    static func requestBytesMax(_ head: RequestHead, fallbackHost: String, certificateLines: [UInt8] = []) -> Int {
        2 * head.headBytes + fallbackHost.utf8.count + certificateLines.count + 512
    }

    static func writeRequest(
        _ bytes: Span<UInt8>, _ head: RequestHead, _ table: FieldTable, peer: Span<UInt8>,
        _ additions: RequestAdditions, to output: ByteBuffer
    ) {
        writeRequestLine(bytes, head, to: output)
        writeHost(bytes, head, table, additions, to: output)
        copyFields(bytes, table, to: output) { keeps($0, of: head, additions) }
        writeForwarded(bytes, head, table, peer: peer, isSecure: additions.isSecure, to: output)
        output.append(additions.certificateLines.span)
        if head.framing == .chunked { output.append("Transfer-Encoding: chunked\r\n") }
        writeConnection(head, to: output)
        if let identity = additions.identity { writeTraceParent(identity, additions.attemptSpanID, to: output) }
        output.append("\r\n")
    }

    /// Whether a line of a request goes to the backend, if no Connection field names it.
    @inline(__always)
    static func keeps(_ line: FieldLine, of head: RequestHead, _ additions: RequestAdditions) -> Bool {
        switch line.known {
        case .other, .contentLength, .userAgent, .trailer: true
        case .host: head.targetForm != .absolute
        case .upgrade: head.wantsUpgrade
        case .expect: head.minorVersion >= 1
        case .traceparent: additions.identity == nil
        case .tracestate: additions.identity?.keepsTraceState ?? true
        case .clientCertificate: additions.certificateLines.isEmpty
        case .connection, .keepAlive, .proxyConnection, .transferEncoding, .te, .http2Settings, .forwardedFor,
            .forwardedProto, .forwardedHost:
            false
        }
    }

    /// The request line in origin or asterisk form (RFC 9112 §3.2.1), with this proxy's own version (§2.3).
    private static func writeRequestLine(_ bytes: Span<UInt8>, _ head: RequestHead, to output: ByteBuffer) {
        if head.targetForm != .absolute {
            output.append(bytes.extracting(first: head.target.upperBound))
            return output.append(" HTTP/1.1\r\n")
        }
        output.append(bytes.extracting(head.methodText))
        output.append(" ")
        if head.path.isEmpty {
            output.append(head.method == .options ? "*" : "/")
        } else {
            if bytes[head.path.lowerBound] == UInt8(ascii: "?") { output.append("/") }
            output.append(bytes.extracting(head.path))
        }
        output.append(" HTTP/1.1\r\n")
    }

    private static func writeHost(
        _ bytes: Span<UInt8>, _ head: RequestHead, _ table: FieldTable, _ additions: RequestAdditions,
        to output: ByteBuffer
    ) {
        if head.targetForm == .absolute {
            output.append("Host: ")
            output.append(bytes.extracting(head.authority))
            output.append("\r\n")
        } else if !table.contains(.host) {
            output.append("Host: ")
            output.append(string: additions.fallbackHost)
            output.append("\r\n")
        }
    }

    private static func writeForwarded(
        _ bytes: Span<UInt8>, _ head: RequestHead, _ table: FieldTable, peer: Span<UInt8>, isSecure: Bool,
        to output: ByteBuffer
    ) {
        output.append("X-Forwarded-For: ")
        if table.contains(.forwardedFor) {
            for line in table.lines where line.known == .forwardedFor && !line.value.isEmpty {
                output.append(bytes.extracting(line.value))
                output.append(", ")
            }
        }
        output.append(peer)
        output.append(isSecure ? "\r\nX-Forwarded-Proto: https\r\n" : "\r\nX-Forwarded-Proto: http\r\n")
        guard !head.authority.isEmpty else { return }
        output.append("X-Forwarded-Host: ")
        output.append(bytes.extracting(head.authority))
        output.append("\r\n")
    }

    private static func writeConnection(_ head: RequestHead, to output: ByteBuffer) {
        if head.acceptsTrailers { output.append("TE: trailers\r\n") }
        switch (head.wantsUpgrade, head.acceptsTrailers) {
        case (true, true): output.append("Connection: Upgrade, TE\r\n")
        case (true, false): output.append("Connection: Upgrade\r\n")
        case (false, true): output.append("Connection: TE\r\n")
        case (false, false): break
        }
    }

    private static func writeTraceParent(_ identity: TraceIdentity, _ spanID: UInt64, to output: ByteBuffer) {
        output.append("traceparent: ")
        writeTraceParentValue(identity, spanID, to: output)
        output.append("\r\n")
    }

    /// W3C Trace Context §3.2: our span of this attempt is the backend's parent. 55 bytes.
    static func writeTraceParentValue(_ identity: TraceIdentity, _ spanID: UInt64, to output: ByteBuffer) {
        output.append("00-")
        output.append(hex: identity.traceIDHigh, digits: 16)
        output.append(hex: identity.traceIDLow, digits: 16)
        output.append("-")
        output.append(hex: spanID, digits: 16)
        output.append("-")
        output.append(hex: UInt64(identity.flags & (TraceContext.sampledFlag | TraceContext.randomFlag)), digits: 2)
    }

    /// How a response goes to the client.
    struct ResponseAdditions: Equatable {
        var writesChunks = false
        var closes = false
        /// Says keep-alive to an HTTP/1.0 client.
        var keepsAlive = false
        /// The connection becomes a tunnel (101).
        var isUpgrade = false
    }

    /// Whether a line of a response goes to the client, if no Connection field names it.
    @inline(__always)
    static func keeps(_ line: FieldLine, of head: ResponseHead, _ additions: ResponseAdditions) -> Bool {
        switch line.known {
        case .other, .host, .te, .expect, .userAgent, .http2Settings, .traceparent, .tracestate, .forwardedFor,
            .forwardedProto, .forwardedHost, .clientCertificate:
            true
        case .contentLength: head.status >= 200 && head.status != 204
        case .trailer: additions.writesChunks
        case .upgrade: additions.isUpgrade || head.status == 426
        case .connection, .keepAlive, .proxyConnection, .transferEncoding: false
        }
    }

    /// Room that `writeResponse` needs at most.
    static func responseBytesMax(_ head: ResponseHead) -> Int { head.headBytes + 128 }

    static func writeResponse(
        _ bytes: Span<UInt8>, _ head: ResponseHead, _ table: FieldTable, _ additions: ResponseAdditions,
        to output: ByteBuffer
    ) {
        output.append("HTTP/1.1 ")
        output.append(bytes.extracting(head.statusText))
        output.append(head.statusText.count == 3 ? " \r\n" : "\r\n")
        copyFields(bytes, table, to: output) { keeps($0, of: head, additions) }
        if additions.writesChunks { output.append("Transfer-Encoding: chunked\r\n") }
        if additions.isUpgrade {
            output.append("Connection: Upgrade\r\n")
        } else if additions.closes {
            output.append("Connection: close\r\n")
        } else if additions.keepsAlive {
            output.append("Connection: keep-alive\r\n")
        }
        output.append("\r\n")
    }

    /// Copies the lines that `keeps` says, neighbours in one piece.
    @inline(__always)
    private static func copyFields(
        _ bytes: Span<UInt8>, _ table: FieldTable, to output: ByteBuffer, where keeps: (FieldLine) -> Bool
    ) {
        var runStart = -1
        var runEnd = 0
        for line in table.lines {
            if keeps(line), !line.isNamedByConnection || line.known == .upgrade {
                if runStart < 0 { runStart = Int(line.start) }
                runEnd = Int(line.end)
            } else if runStart >= 0 {
                output.append(bytes.extracting(runStart..<runEnd))
                runStart = -1
            }
        }
        if runStart >= 0 { output.append(bytes.extracting(runStart..<runEnd)) }
    }
}
