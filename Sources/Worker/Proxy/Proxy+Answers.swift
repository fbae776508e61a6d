import ShmRing

/// Answers of this proxy's own: refusals and failures.
extension Proxy {
    /// Refuses a request whose head never became a request.
    func refuse(_ connection: DownstreamConnection, _ error: ErrorType) {
        let exchange = openExchange(connection)
        if let tracer { exchange.identity = tracer.identify() }
        retainRefused(exchange, connection)
        exchange.mustClose = true
        answer(exchange, error)
    }

    /// Keeps what can be told of a head that could not be read: its first line's method and target.
    private func retainRefused(_ exchange: Exchange, _ connection: DownstreamConnection) {
        guard let input = connection.input else { return }
        let bytes = input.readable
        let (method, target) = RefusedRequest.parts(bytes, targetBytesMax: 1024)
        exchange.head.methodText = method
        exchange.head.target = target
        exchange.head.method = Method.named(bytes.extracting(method))
        let kept = max(method.upperBound, target.upperBound)
        let retained = buffers.take(holding: max(kept, 1))
        retained.append(bytes.extracting(first: kept))
        exchange.retained = retained
        input.consume(input.readableBytes)
        connection.releaseEmptyInput(&buffers)
    }

    /// Answers instead of a backend.
    func answer(_ exchange: Exchange, _ error: ErrorType) {
        guard let client = exchange.downstream, let status = error.status else { return abort(exchange) }
        exchange.error = error
        exchange.phase = .answering
        exchange.statusSent = status
        exchange.streamingStartNs = stampNs()
        // What was not read of the request would be taken for the next one.
        if !exchange.isRequestRead || isDraining { exchange.mustClose = true }
        downstreamDeadlines.disarm(client.slot)
        let output = client.outputBuffer(room: 512, &buffers)
        exchange.localBodyBytes = LocalAnswer.write(
            error, status: status, closes: exchange.mustClose, isHead: exchange.head.method == .head,
            keepsAlive: exchange.head.minorVersion == 0 && !exchange.mustClose, to: output)
        pumpAnswer(exchange)
    }

    func pumpAnswer(_ exchange: Exchange) {
        guard let client = exchange.downstream else { return }
        exchange.isResponseBlocked = false
        switch client.flush(&buffers) {
        case .bytes: finish(exchange)
        case .wouldBlock:
            exchange.isResponseBlocked = true
            downstreamDeadlines.arm(client.slot, .clientStall, nowNs: nowNs)
        case .failed: abort(exchange)
        case .endOfStream: preconditionFailure("send(2) has no end of stream")
        }
    }
}

/// The bytes of an answer of our own.
enum LocalAnswer {
    /// Seconds after which a client that was told 503 may come again (RFC 9110 §10.2.3).
    static let retryAfterSeconds = 1

    /// Writes head and body.
    /// - Returns: Bytes of the body.
    static func write(
        _ error: ErrorType, status: Int, closes: Bool, isHead: Bool, keepsAlive: Bool, to output: ByteBuffer
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
