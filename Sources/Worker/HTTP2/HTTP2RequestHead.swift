/// A client's request head goes into HEADERS for a backend without becoming text on its way, which would be parsed
/// again: what `HeadWriter.writeRequest` writes and `submitHead` reads, in one step.
extension HTTP2Session {
    /// - Returns: False when the head must come as text: it has something to say that only `HeadWriter` knows how to.
    func submitRequest(
        _ bytes: Span<UInt8>, _ head: RequestHead, _ table: FieldTable, peer: Span<UInt8>,
        _ additions: HeadWriter.RequestAdditions, of stream: HTTP2Stream
    ) -> Bool {
        guard head.targetForm != .absolute, table.contains(.host), !head.wantsUpgrade,
            additions.certificateLines.isEmpty
        else { return false }
        stream.method = head.method
        context.fields.reset()
        appendPseudoFields(bytes, head, of: stream)
        for position in 0..<table.count {
            let line = table[position]
            guard HeadWriter.keeps(line, of: head, additions), line.known != .host, line.known != .upgrade,
                !line.isNamedByConnection
            else { continue }
            context.fields.append(bytes.extracting(line.name), bytes.extracting(line.value))
        }
        appendAdditions(bytes, head, table, peer: peer, additions)
        let id = submitRequest(stream, hasBody: head.framing != .none)
        guard id > 0 else { return false }
        stream.submitted(id: id)
        return true
    }

    private func appendAdditions(
        _ bytes: Span<UInt8>, _ head: RequestHead, _ table: FieldTable, peer: Span<UInt8>,
        _ additions: HeadWriter.RequestAdditions
    ) {
        let fields = context.fields
        appendForwardedFor(bytes, table, peer: peer)
        fields.append("x-forwarded-proto", additions.isSecure ? "https" : "http")
        if !head.authority.isEmpty { fields.append("x-forwarded-host", bytes.extracting(head.authority)) }
        if head.acceptsTrailers { fields.append("te", "trailers") }
        guard let identity = additions.identity else { return }
        let value = context.scratch
        value.reset()
        HeadWriter.writeTraceParentValue(identity, additions.attemptSpanID, to: value)
        fields.append("traceparent", value.readable)
    }

    private func appendForwardedFor(_ bytes: Span<UInt8>, _ table: FieldTable, peer: Span<UInt8>) {
        let fields = context.fields
        guard table.contains(.forwardedFor) else { return fields.append("x-forwarded-for", peer) }
        fields.begin("x-forwarded-for")
        for line in table.lines where line.known == .forwardedFor && !line.value.isEmpty {
            fields.extend(bytes.extracting(line.value))
            fields.extend(", ")
        }
        fields.extend(peer)
        fields.end()
    }
}
