import ShmRing

/// Answers of this proxy's own: refusals and failures.
extension Proxy {
    /// Refuses a request whose head never became a request.
    /// - Parameter isTableCurrent: The field table holds what could be read of this head.
    func refuse(_ connection: DownstreamConnection, _ error: ErrorType, isTableCurrent: Bool = false) {
        let exchange = openExchange(connection)
        if let tracer, isTableCurrent, let input = connection.input {
            exchange.identity = tracer.identify(input.readable, table)
            exchange.identity.keepsTraceState = false
        } else if let tracer {
            exchange.identity = tracer.identify()
        }
        retainRefused(exchange, connection)
        exchange.mustClose = true
        answer(exchange, error)
    }

    /// Keeps what can be told of a head that could not be read: its first line's method and target.
    func retainRefused(_ exchange: Exchange, _ connection: DownstreamConnection) {
        guard let input = connection.input else { return }
        let retained = buffers.take(.medium)
        exchange.head = RefusedRequest.retain(input.readable, into: retained)
        exchange.retained = retained
        input.consume(input.readableBytes)
        connection.releaseEmptyInput(buffers)
    }

    /// Answers instead of a backend.
    func answer(_ exchange: Exchange, _ error: ErrorType) {
        guard let client = exchange.downstream, let status = error.status else { return abort(exchange) }
        exchange.error = error
        exchange.phase = .answering
        tracer?.answerBegan(exchange)
        exchange.statusSent = status
        exchange.streamingStartNs = stampNs()
        // What was not read of the request would be taken for the next one.
        if !exchange.isRequestRead || !mayGoOn(client) { exchange.mustClose = true }
        downstreamDeadlines.disarm(client)
        let output = client.outputBuffer(room: 512, buffers)
        exchange.localBodyBytes = LocalAnswer.write(
            error, status: status, closes: exchange.mustClose, isHead: exchange.head.method == .head,
            keepsAlive: exchange.head.minorVersion == 0 && !exchange.mustClose,
            retryAfterSeconds: retryAfterSeconds(error), to: output)
        pumpAnswer(exchange)
    }

    /// Seconds until a backend may be tried again, at least 1 (RFC 9110 §10.2.3).
    private func retryAfterSeconds(_ error: ErrorType) -> Int {
        guard error == .noHealthyBackend else { return 1 }
        let next = endpoints.compactMap(\.health.retryAtNs).min() ?? nowNs
        return next > nowNs ? Int((next - nowNs) / 1_000_000_000) + 1 : 1
    }

    func pumpAnswer(_ exchange: Exchange) {
        guard let client = exchange.downstream else { return }
        exchange.isResponseBlocked = false
        switch client.flush(buffers) {
        case .bytes: finish(exchange)
        case .wouldBlock:
            exchange.isResponseBlocked = true
            downstreamDeadlines.arm(client, .clientStall, nowNs: nowNs)
        case .failed: abort(exchange)
        case .endOfStream: preconditionFailure("send(2) has no end of stream")
        }
    }
}

/// The bytes of an answer of our own.
enum LocalAnswer {
    /// Writes head and body.
    /// - Parameter retryAfterSeconds: When a client that is told 503 may come again.
    /// - Returns: Bytes of the body.
    static func write(
        _ error: ErrorType, status: Int, closes: Bool, isHead: Bool, keepsAlive: Bool, retryAfterSeconds: Int,
        to output: ByteBuffer
    ) -> Int {
        let reason = reasonPhrase(status)
        let bodyBytes = 3 + 1 + reason.utf8CodeUnitCount + 1 + error.sentence.utf8CodeUnitCount + 1
        output.append("HTTP/1.1 ")
        output.append(decimal: status)
        output.append(" ")
        output.append(reason)
        output.append("\r\nContent-Type: text/plain\r\nContent-Length: ")
        output.append(decimal: bodyBytes)
        if status == 405 { output.append("\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH") }
        if status == 503 {
            output.append("\r\nRetry-After: ")
            output.append(decimal: retryAfterSeconds)
        }
        if closes { output.append("\r\nConnection: close") }
        if keepsAlive { output.append("\r\nConnection: keep-alive") }
        output.append("\r\n\r\n")
        guard !isHead else { return 0 }
        output.append(decimal: status)
        output.append(" ")
        output.append(reason)
        output.append("\n")
        output.append(error.sentence)
        output.append("\n")
        return bodyBytes
    }
}

/// What can be told of a request that was refused.
enum RefusedRequest {
    private static let targetBytesMax = 1024

    /// Writes method and target, as far as they can be made out, and says where they stand. Credentials in
    /// a target stay out.
    static func retain(_ bytes: Span<UInt8>, into retained: ByteBuffer) -> RequestHead {
        var head = RequestHead()
        let (method, target) = parts(bytes, targetBytesMax: targetBytesMax)
        head.method = Method.named(bytes.extracting(method))
        head.methodText = method
        retained.append(bytes.extracting(method))
        let start = retained.writeIndex
        let authority = RequestURL.authorityStart(bytes, target)
        if authority > target.lowerBound { head.targetForm = .absolute }
        retained.append(bytes.extracting(target.lowerBound..<authority))
        let visible = RequestURL.withoutUserInformation(bytes, authority..<target.upperBound)
        if head.targetForm != .absolute || isAuthorityWhole(bytes, authority..<target.upperBound) {
            retained.append(bytes.extracting(visible))
        }
        head.target = start..<retained.writeIndex
        return head
    }

    /// False when the target breaks off within its authority: what is there may be half a password.
    private static func isAuthorityWhole(_ bytes: Span<UInt8>, _ rest: Range<Int>) -> Bool {
        for index in rest where bytes[index] == UInt8(ascii: "/") || bytes[index] == UInt8(ascii: "?") { return true }
        return rest.upperBound < bytes.count && bytes[rest.upperBound] == 0x20
    }

    /// The first two words of the first line, as far as they are there and could be what they should be.
    static func parts(_ bytes: Span<UInt8>, targetBytesMax: Int) -> (method: Range<Int>, target: Range<Int>) {
        var index = 0
        while index < bytes.count, isTokenByte(bytes[index]), index < 32 { index += 1 }
        guard index > 0, index < bytes.count, bytes[index] == 0x20 else { return (0..<0, 0..<0) }
        let method = 0..<index
        let start = index + 1
        index = start
        while index < bytes.count, isTargetByte(bytes[index]), index - start < targetBytesMax { index += 1 }
        return (method, start..<index)
    }
}
