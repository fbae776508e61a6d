import CShims

/// What comes in, as libnghttp2's callbacks tell it: noted, and looked at by the proxy afterwards.
extension HTTP2Session {
    /// A header block begins.
    /// - Parameter stream: Nil for a request's, whose stream is new.
    func blockBegan(_ streamID: Int32, _ stream: HTTP2Stream?) {
        blockBytes = 0
        if let stream {
            blockStream = stream
            isTrailerBlock = stream.hasFinalHead
        } else {
            if streamID > lastRequestID + 2 { leaveOut(lastRequestID + 2..<streamID) }
            lastRequestID = streamID
            let stream = newStream(id: streamID)
            unsafe nghttp2_session_set_stream_user_data(
                raw, streamID, Unmanaged.passUnretained(stream).toOpaque())
            blockStream = stream
            isTrailerBlock = false
        }
        if isTrailerBlock {
            trailerBlock.reset()
        } else if role == .server {
            requestBlock.reset()
        } else {
            responseBlock.reset()
        }
    }

    private func leaveOut(_ ids: Range<Int32>) {
        if leftOutIDs.count == Self.leftOutIDsMax { leftOutIDs.removeFirst() }
        leftOutIDs.append(ids)
        hasLeftOut = true
    }

    /// HEADERS come. On a stream that was left out they are an error (RFC 9113 §5.1.1), which libnghttp2 cannot tell from
    /// a stream that it has forgotten, where they are none.
    func headersBegin(_ streamID: Int32) {
        if leftOutIDs.contains(where: { $0.contains(streamID) }) { terminate(.protocolError) }
    }

    /// - Returns: False when the block is not to be read on.
    func blockField(_ name: Span<UInt8>, _ value: Span<UInt8>) -> Bool {
        guard countField(bytes: name.count + value.count) else { return false }
        if isTrailerBlock {
            trailerBlock.field(name, value)
        } else if role == .server {
            requestBlock.field(name, value)
        } else {
            responseBlock.field(name, value)
        }
        return true
    }

    /// libnghttp2 refuses the block that comes in, or the rest of it, and resets its stream. Of a request something
    /// is kept for the trace.
    func blockRefused(_ streamID: Int32) {
        guard let stream = blockStream, stream.id == streamID else { return }
        blockStream = nil
        stream.isResetting = true
        if role == .server, !isTrailerBlock { keepRefused(stream) }
    }

    /// Its method, target and host, as far as they have come.
    private func keepRefused(_ stream: HTTP2Stream) {
        requestBlock.refuse()
        stream.refusal = .protocolError
        if let text = stream.headRoom(requestBlock.headBytesMax) {
            let before = text.readableBytes
            requestBlock.writeHead(hasBody: false, webSocketKey: InlineArray<24, UInt8>(repeating: 0).span, to: text)
            stream.headWritten(bytes: text.readableBytes - before, framing: .raw, isFinal: true)
        }
        requestBlock.reset()
        stream.news.hasArrived = true
        touch(stream)
    }

    func blockEnded(endsStream: Bool, frameBytes: Int) {
        guard let stream = blockStream else { return }
        blockStream = nil
        patience.blockArrived(frameBytes: frameBytes)
        if isTrailerBlock {
            trailersEnded(stream)
        } else if role == .server {
            requestEnded(stream, endsStream: endsStream)
        } else {
            responseEnded(stream, endsStream: endsStream)
        }
    }

    private func requestEnded(_ stream: HTTP2Stream, endsStream: Bool) {
        // One read may bring many: no head is kept of those that nobody will look at.
        guard patience.streamsLast() else {
            requestBlock.reset()
            return calm(.spoiledStreams)
        }
        requestBlock.judge()
        guard requestBlock.refusal != .malformed else {
            keepRefused(stream)
            return submitReset(stream, .protocolError, isPeersFault: true)
        }
        if requestBlock.refusal == .tooLarge { stream.refusal = .headTooLarge }
        stream.method = requestBlock.method
        stream.isExtendedConnect = requestBlock.isExtendedConnect
        guard let text = stream.headRoom(requestBlock.headBytesMax) else { return }
        let before = text.readableBytes
        let key = stream.isExtendedConnect ? context.newWebSocketKey() : InlineArray<24, UInt8>(repeating: 0)
        requestBlock.writeHead(hasBody: !endsStream, webSocketKey: key.span, to: text)
        let isChunked = !endsStream && requestBlock.contentLength == nil
        stream.headWritten(
            bytes: text.readableBytes - before,
            framing: stream.isExtendedConnect ? .tunnel : isChunked ? .chunked : .raw, isFinal: true)
        requestBlock.reset()
        if endsStream { stream.inboundEnded(trailers: []) }
        stream.news.hasArrived = true
        touch(stream)
    }

    private func responseEnded(_ stream: HTTP2Stream, endsStream: Bool) {
        // Nobody wants it any more.
        guard !stream.isResetting else { return responseBlock.reset() }
        responseBlock.judge()
        if responseBlock.isInterim, stream.countInterim() > ResponseParser.interimMax {
            responseBlock.reset()
            return submitReset(stream, .enhanceYourCalm)
        }
        guard !responseBlock.isMalformed, let text = stream.headRoom(responseBlock.headBytesMax) else {
            responseBlock.reset()
            return submitReset(stream, .protocolError)
        }
        if stream.opensTunnel, (200..<300).contains(responseBlock.status) {
            return tunnelOpened(stream, text, endsStream: endsStream)
        }
        let before = text.readableBytes
        responseBlock.writeHead(answering: stream.method, hasBody: !endsStream, to: text)
        let hasNoBody = ResponseParser.hasNoBody(status: responseBlock.status, answering: stream.method)
        let isChunked = !endsStream && responseBlock.contentLength == nil && !hasNoBody
        stream.headWritten(
            bytes: text.readableBytes - before, framing: isChunked ? .chunked : .raw,
            isFinal: !responseBlock.isInterim, lengthExpected: hasNoBody ? 0 : responseBlock.contentLength)
        responseBlock.reset()
        if endsStream { stream.inboundEnded(trailers: []) }
        stream.news.isReadable = true
        touch(stream)
    }

    /// The server has opened the WebSocket that the request asked for.
    private func tunnelOpened(_ stream: HTTP2Stream, _ text: ByteBuffer, endsStream: Bool) {
        let before = text.readableBytes
        responseBlock.writeSwitching(accept: WebSocketAccept.value(for: stream.webSocketKey).span, to: text)
        stream.headWritten(bytes: text.readableBytes - before, framing: .tunnel, isFinal: true)
        responseBlock.reset()
        if endsStream { stream.inboundEnded(trailers: []) }
        stream.news.isReadable = true
        touch(stream)
    }

    private func trailersEnded(_ stream: HTTP2Stream) {
        guard !trailerBlock.isMalformed else { return submitReset(stream, .protocolError, isPeersFault: true) }
        stream.inboundEnded(trailers: trailerBlock.lines)
        trailerBlock.reset()
        stream.news.isReadable = true
        touch(stream)
    }

    func dataReceived(_ stream: HTTP2Stream?, _ streamID: Int32, _ bytes: Span<UInt8>) {
        patience.dataArrived(bytes.count)
        guard let stream, stream.dataReceived(bytes) else {
            _ = unsafe nghttp2_session_consume(raw, streamID, bytes.count)
            if let stream { discarded(bytes.count, of: stream) }
            return
        }
        waitingBytes += bytes.count
        stream.news.isReadable = true
        touch(stream)
    }

    func dataFrameEnded(_ stream: HTTP2Stream?, bytes: Int, endsStream: Bool) {
        if bytes > 0 || endsStream { patience.dataFrameEnded() }
        if endsStream, let stream {
            stream.inboundEnded(trailers: [])
            stream.news.isReadable = true
            touch(stream)
        } else if bytes == 0 {
            patience.charge(HTTP2Patience.emptyDataBytes)
        }
    }

    func streamClosed(_ stream: HTTP2Stream?, errorCode: UInt32) {
        guard let stream else { return }
        // libnghttp2 remembers closed streams of a client for a while; their object may be gone by then.
        unsafe nghttp2_session_set_stream_user_data(raw, stream.id, nil)
        if blockStream === stream { blockStream = nil }
        // Who has the whole answer may leave the rest of the request.
        let isSpoiled = stream.wasResetByPeer ? !stream.isDiscarding : errorCode != 0 && !stream.wasResetHere
        if stream.isDiscarding { stopDiscarding(stream) }
        if role == .server { isSpoiled ? patience.streamSpoiled() : patience.streamEnded() }
        if stream.news.hasArrived { stream.shortenHead() }
        stream.closed(errorCode: errorCode)
        stream.news.hasClosed = true
        touch(stream)
    }

    func settingsReceived() {
        settingsCount += 1
        patience.charge(HTTP2Patience.settingsBytes)
        func value(_ id: nghttp2_settings_id) -> UInt32 { unsafe nghttp2_session_get_remote_settings(raw, id) }
        peerSettings = PeerSettings(
            streamsMax: value(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS),
            windowBytes: value(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE),
            allowsExtendedConnect: value(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 0)
    }

    func settingsAcknowledged() {
        areSettingsAcknowledged = true
        windowsChanged()
    }

    func goawayReceived(lastStreamID: Int32, errorCode: UInt32, debugData: Span<UInt8>) {
        var data: [UInt8] = []
        for index in 0..<min(debugData.count, Goaway.debugBytesMax) { data.append(debugData[index]) }
        note(Goaway(lastStreamID: lastStreamID, errorCode: errorCode, debugData: data))
    }

    func pingAcknowledged() { pingAckCount += 1 }
}
