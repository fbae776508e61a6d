import CShims

/// Heads and trailers that the proxy wrote as HTTP/1.1 become header blocks.
extension HTTP2Session {
    /// What became of a head that the proxy wrote.
    struct SubmittedHead {
        var bytes: Int
        var framing: BodyFraming
        var isFinal: Bool
    }

    /// Turns the HTTP/1.1 head at the start of `bytes` into HEADERS. Nil when it is none.
    func submitHead(_ bytes: Span<UInt8>, of stream: HTTP2Stream) -> SubmittedHead? {
        role == .server ? submitResponse(bytes, of: stream) : submitRequest(bytes, of: stream)
    }

    private func submitResponse(_ bytes: Span<UInt8>, of stream: HTTP2Stream) -> SubmittedHead? {
        let table = context.table
        guard
            case .complete(let head) = context.responseParser.parse(bytes, answering: stream.method, into: table)
        else { return nil }
        let opensTunnel = head.status == 101
        guard !opensTunnel || stream.isExtendedConnect else { return nil }
        let fields = context.fields
        fields.reset()
        if opensTunnel {
            fields.append(":status", "200")
        } else {
            fields.append(":status", bytes.extracting(first: 3, of: head.statusText))
        }
        appendLines(bytes, table, of: stream, dropsAccept: opensTunnel)
        let isFinal = opensTunnel || !head.isInterim
        let framing: BodyFraming = opensTunnel ? .untilClose : head.framing
        guard submit(stream, isFinal: isFinal, hasBody: framing != .none) else { return nil }
        return SubmittedHead(bytes: head.headBytes, framing: framing, isFinal: isFinal)
    }

    /// Turns a backend's final head into HEADERS without the text that `HeadWriter.writeResponse` would make of it.
    func submitResponse(
        _ bytes: Span<UInt8>, _ head: ResponseHead, _ table: FieldTable, _ additions: HeadWriter.ResponseAdditions,
        hasBody: Bool, of stream: HTTP2Stream
    ) -> Bool {
        let fields = context.fields
        fields.reset()
        fields.append(":status", bytes.extracting(first: 3, of: head.statusText))
        for position in 0..<table.count {
            let line = table[position]
            guard line.known != .upgrade, line.known != .http2Settings, !line.isNamedByConnection,
                HeadWriter.keeps(line, of: head, additions)
            else { continue }
            fields.append(bytes.extracting(line.name), bytes.extracting(line.value))
        }
        return submit(stream, isFinal: true, hasBody: hasBody)
    }

    private func submit(_ stream: HTTP2Stream, isFinal: Bool, hasBody: Bool) -> Bool {
        let none = UInt8(NGHTTP2_FLAG_NONE.rawValue)
        return unsafe context.fields.withFields { fields, count in
            guard isFinal else {
                return unsafe nghttp2_submit_headers(raw, none, stream.id, nil, fields, count, nil) == 0
            }
            guard hasBody else { return unsafe nghttp2_submit_response(raw, stream.id, fields, count, nil) == 0 }
            var provider = unsafe HTTP2Callbacks.provider(stream)
            return unsafe nghttp2_submit_response(raw, stream.id, fields, count, &provider) == 0
        }
    }

    /// The lines that HTTP/2 keeps.
    private func appendLines(
        _ bytes: Span<UInt8>, _ table: FieldTable, of stream: HTTP2Stream, dropsAccept: Bool = false
    ) {
        for line in table.lines {
            switch line.known {
            case .connection, .keepAlive, .proxyConnection, .transferEncoding, .upgrade, .http2Settings: continue
            case .host where role == .client: continue
            case .te where role == .client:
                context.fields.append("te", "trailers")
                continue
            default: break
            }
            let name = bytes.extracting(line.name)
            if dropsAccept, name.matchesIgnoringCase("sec-websocket-accept") { continue }
            if stream.opensTunnel, name.matchesIgnoringCase("sec-websocket-key") {
                stream.webSocketKey = Self.copy(bytes.extracting(line.value))
                continue
            }
            context.fields.append(name, bytes.extracting(line.value))
        }
    }

    private static func copy(_ bytes: Span<UInt8>) -> [UInt8] {
        var copy: [UInt8] = []
        for index in bytes.indices { copy.append(bytes[index]) }
        return copy
    }

    private func submitRequest(_ bytes: Span<UInt8>, of stream: HTTP2Stream) -> SubmittedHead? {
        let table = context.table
        guard case .complete(let head) = context.requestParser.parse(bytes, into: table) else { return nil }
        context.fields.reset()
        stream.method = head.method
        appendPseudoFields(bytes, head, of: stream)
        appendLines(bytes, table, of: stream)
        let framing: BodyFraming = stream.opensTunnel ? .untilClose : head.framing
        let id = submitRequest(stream, hasBody: framing != .none)
        guard id > 0 else { return nil }
        stream.submitted(id: id)
        return SubmittedHead(bytes: head.headBytes, framing: framing, isFinal: true)
    }

    /// RFC 9113 §8.3.1, and RFC 8441 §4 for what opens a WebSocket.
    func appendPseudoFields(_ bytes: Span<UInt8>, _ head: RequestHead, of stream: HTTP2Stream) {
        let fields = context.fields
        if stream.opensTunnel {
            fields.append(":method", "CONNECT")
            fields.append(":protocol", "websocket")
        } else {
            fields.append(":method", bytes.extracting(head.methodText))
        }
        let isSecure = upstream?.endpoint.isSecure ?? false
        fields.append(":scheme", isSecure ? "https" : "http")
        if !head.authority.isEmpty { fields.append(":authority", bytes.extracting(head.authority)) }
        fields.append(":path", bytes.extracting(head.target))
    }

    func submitRequest(_ stream: HTTP2Stream, hasBody: Bool) -> Int32 {
        unsafe context.fields.withFields { fields, count in
            guard hasBody else {
                return unsafe nghttp2_submit_request(
                    raw, nil, fields, count, nil, Unmanaged.passUnretained(stream).toOpaque())
            }
            var provider = unsafe HTTP2Callbacks.provider(stream)
            return unsafe nghttp2_submit_request(
                raw, nil, fields, count, &provider, Unmanaged.passUnretained(stream).toOpaque())
        }
    }

    /// The stream's last DATA is written; trailers follow.
    func submitTrailers(_ stream: HTTP2Stream) -> Bool {
        let section = stream.trailersToSend + [0x0D, 0x0A]
        let table = FieldTable(capacity: 8)
        guard case .complete = FieldSection.parse(section.span, from: 0, into: table, fieldsMax: 64) else {
            return false
        }
        context.fields.reset()
        for line in table.lines {
            context.fields.append(section.span.extracting(line.name), section.span.extracting(line.value))
        }
        return unsafe context.fields.withFields { fields, count in
            unsafe nghttp2_submit_trailer(raw, stream.id, fields, count) == 0
        }
    }
}
