import CShims

/// What libnghttp2 calls: thunks that find the session or stream, tell it one thing, and return.
///
/// The user data of a session is the `HTTP2Session`, that of a stream the `HTTP2Stream`; neither is retained
/// by libnghttp2. The session outlives its raw session, and its streams stay in its list until `forget`, which is
/// called after libnghttp2 has closed them and outside of every callback.
enum HTTP2Callbacks {
    static func install(on callbacks: OpaquePointer) {
        unsafe nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, frameBegins)
        unsafe nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, blockBegan)
        unsafe nghttp2_session_callbacks_set_on_header_callback(callbacks, blockField)
        unsafe nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, invalidField)
        unsafe nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, invalidFrame)
        unsafe nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, frameReceived)
        unsafe nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, dataReceived)
        unsafe nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, streamClosed)
        unsafe nghttp2_session_callbacks_set_send_data_callback(callbacks, sendData)
    }

    /// Where libnghttp2 gets a stream's DATA from.
    static func provider(_ stream: HTTP2Stream) -> nghttp2_data_provider {
        unsafe nghttp2_data_provider(
            source: nghttp2_data_source(ptr: Unmanaged.passUnretained(stream).toOpaque()), read_callback: readData)
    }
}

/// Callbacks borrow the session and its streams, which outlive them: a reference of their own would be counted up and
/// down again for each field.
@inline(__always)
private func withSession<Result>(_ context: UnsafeMutableRawPointer?, _ body: (HTTP2Session) -> Result) -> Result {
    guard let context = unsafe context else { preconditionFailure("libnghttp2 forgot whose session it is") }
    return unsafe Unmanaged<HTTP2Session>.fromOpaque(context)._withUnsafeGuaranteedRef { body($0) }
}

private func stream(_ raw: OpaquePointer?, _ id: Int32) -> HTTP2Stream? {
    guard let context = unsafe nghttp2_session_get_stream_user_data(raw, id) else { return nil }
    return unsafe Unmanaged<HTTP2Stream>.fromOpaque(context).takeUnretainedValue()
}

private func frameBegins(
    _ raw: OpaquePointer?, _ head: UnsafePointer<nghttp2_frame_hd>?, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    guard let head = unsafe head, unsafe head.pointee.type == UInt8(NGHTTP2_HEADERS.rawValue) else { return 0 }
    let id = unsafe head.pointee.stream_id
    unsafe withSession(context) { session in
        if session.hasLeftOut { session.headersBegin(id) }
    }
    return 0
}

private func blockBegan(
    _ raw: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    guard let frame = unsafe frame, unsafe frame.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue) else { return 0 }
    let id = unsafe frame.pointee.hd.stream_id
    let isRequest = unsafe frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST
    let known = unsafe stream(raw, id)
    guard isRequest || known != nil else { return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue }
    unsafe withSession(context) { $0.blockBegan(id, isRequest ? nil : known) }
    return 0
}

private func blockField(
    _ raw: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?, _ nameCount: Int,
    _ value: UnsafePointer<UInt8>?, _ valueCount: Int, _ flags: UInt8, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    let goesOn = unsafe withSession(context) { session in
        unsafe session.blockField(
            UnsafeBufferPointer(start: name, count: nameCount).span,
            UnsafeBufferPointer(start: value, count: valueCount).span)
    }
    return goesOn ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

/// A field that libnghttp2 would leave out silently: the message is malformed (RFC 9113 §8.2.1).
private func invalidField(
    _ raw: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?, _ nameCount: Int,
    _ value: UnsafePointer<UInt8>?, _ valueCount: Int, _ flags: UInt8, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    guard let frame = unsafe frame else { return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }
    unsafe nghttp2_submit_rst_stream(
        raw, UInt8(NGHTTP2_FLAG_NONE.rawValue), frame.pointee.hd.stream_id, HTTP2ErrorCode.protocolError.rawValue)
    let id = unsafe frame.pointee.hd.stream_id
    unsafe withSession(context) { $0.blockRefused(id) }
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
}

/// A frame for which libnghttp2 resets its stream or ends the connection.
private func invalidFrame(
    _ raw: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ error: Int32, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    guard let frame = unsafe frame, unsafe frame.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue) else { return 0 }
    let id = unsafe frame.pointee.hd.stream_id
    // One over the limit, which gets no object.
    let isUnknown = unsafe stream(raw, id) == nil
    unsafe withSession(context) { session in
        if isUnknown {
            session.patience.streamSpoiled()
            session.lastRequestID = max(session.lastRequestID, id)
        }
        session.blockRefused(id)
    }
    return 0
}

private func frameReceived(
    _ raw: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    guard let frame = unsafe frame else { return 0 }
    unsafe withSession(context) { unsafe frameReceived($0, raw, frame) }
    return 0
}

@inline(__always)
private func frameReceived(_ session: HTTP2Session, _ raw: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>) {
    let head = unsafe frame.pointee.hd
    let endsStream = head.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
    let isAck = head.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0
    switch nghttp2_frame_type(UInt32(head.type)) {
    case NGHTTP2_HEADERS: session.blockEnded(endsStream: endsStream, frameBytes: head.length)
    case NGHTTP2_DATA:
        unsafe session.dataFrameEnded(stream(raw, head.stream_id), bytes: head.length, endsStream: endsStream)
    case NGHTTP2_SETTINGS: isAck ? session.settingsAcknowledged() : session.settingsReceived()
    case NGHTTP2_RST_STREAM: unsafe stream(raw, head.stream_id)?.wasResetByPeer = true
    case NGHTTP2_PING where isAck: session.pingAcknowledged()
    case NGHTTP2_PING: session.patience.charge(HTTP2Patience.pingBytes)
    case NGHTTP2_GOAWAY:
        let goaway = unsafe frame.pointee.goaway
        unsafe session.goawayReceived(
            lastStreamID: goaway.last_stream_id, errorCode: goaway.error_code,
            debugData: UnsafeBufferPointer(start: goaway.opaque_data, count: goaway.opaque_data_len).span)
    default: break
    }
}

private func dataReceived(
    _ raw: OpaquePointer?, _ flags: UInt8, _ id: Int32, _ bytes: UnsafePointer<UInt8>?, _ count: Int,
    _ context: UnsafeMutableRawPointer?
) -> Int32 {
    unsafe withSession(context) { session in
        unsafe session.dataReceived(stream(raw, id), id, UnsafeBufferPointer(start: bytes, count: count).span)
    }
    return 0
}

private func streamClosed(
    _ raw: OpaquePointer?, _ id: Int32, _ errorCode: UInt32, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    unsafe withSession(context) { unsafe $0.streamClosed(stream(raw, id), errorCode: errorCode) }
    return 0
}

/// Says how much of a stream's DATA comes next. `sendData` then takes it, so that it is copied only once.
private func readData(
    _ raw: OpaquePointer?, _ id: Int32, _ target: UnsafeMutablePointer<UInt8>?, _ room: Int,
    _ flags: UnsafeMutablePointer<UInt32>?, _ source: UnsafeMutablePointer<nghttp2_data_source>?,
    _ context: UnsafeMutableRawPointer?
) -> Int {
    guard let flags = unsafe flags, let pointer = unsafe source?.pointee.ptr else {
        return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue)
    }
    return unsafe Unmanaged<HTTP2Stream>.fromOpaque(pointer)._withUnsafeGuaranteedRef { stream in
        unsafe withSession(context) { unsafe readData($0, stream, room, flags) }
    }
}

@inline(__always)
private func readData(
    _ session: HTTP2Session, _ stream: HTTP2Stream, _ room: Int, _ flags: UnsafeMutablePointer<UInt32>
) -> Int {
    guard let next = stream.nextOutbound(room) else { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
    session.patience.dataSent(next.bytes)
    if next.bytes > 0 { unsafe flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue }
    if next.isLast {
        unsafe flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
        if !stream.trailersToSend.isEmpty, session.submitTrailers(stream) {
            unsafe flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
        }
    }
    return next.bytes
}

/// Writes the frame that `readData` announced. There is no padding, which would be for a callback to ask for.
private func sendData(
    _ raw: OpaquePointer?, _ frame: UnsafeMutablePointer<nghttp2_frame>?, _ head: UnsafePointer<UInt8>?, _ count: Int,
    _ source: UnsafeMutablePointer<nghttp2_data_source>?, _ context: UnsafeMutableRawPointer?
) -> Int32 {
    guard let head = unsafe head, let pointer = unsafe source?.pointee.ptr else {
        return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue
    }
    return unsafe Unmanaged<HTTP2Stream>.fromOpaque(pointer)._withUnsafeGuaranteedRef { stream in
        unsafe withSession(context) { session in
            unsafe session.writeData(UnsafeBufferPointer(start: head, count: 9).span, count, of: stream).rawValue
        }
    }
}
