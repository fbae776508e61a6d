import Glibc

/// Standard output and error without C's buffers, which a fork would copy.
/// Unsafe: lends the text's bytes to write(2).
enum StandardStream: Int32 {
    case output = 1
    case error = 2

    /// Writes all of it, as far as the stream takes it.
    func write(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            var written = 0
            while written < bytes.count {
                let count = unsafe Glibc.write(rawValue, bytes.baseAddress! + written, bytes.count - written)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { return }
                written += count
            }
        }
    }
}
