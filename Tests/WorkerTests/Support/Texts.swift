@testable import Worker

extension ByteBuffer {
    /// The unread bytes as text.
    var text: String { String(decoding: bytes, as: UTF8.self) }

    /// The unread bytes.
    var bytes: [UInt8] {
        let span = readable
        return span.indices.map { span[$0] }
    }

    /// A buffer that holds `text`.
    static func holding(_ text: String, capacity: Int = 65536) -> ByteBuffer {
        let buffer = ByteBuffer(capacity: capacity)
        buffer.append(string: text)
        return buffer
    }
}

extension ByteBuffer {
    func append(_ bytes: [UInt8]) { append(bytes.span) }
}
