import CShims
import Glibc

/// OpenSSL's queue of errors as text. The queue belongs to the thread, so it is cleared before each call whose errors
/// are looked at. Unsafe: C strings with static lifetime.
enum TLSErrors {
    /// Forgets what earlier calls left.
    @inline(__always)
    static func clear() { ERR_clear_error() }

    /// What went wrong first, in OpenSSL's words, and forgets it. Nil when nothing did.
    static func take() -> String? {
        let error = ERR_get_error()
        guard error != 0 else { return nil }
        ERR_clear_error()
        if lb_error_is_system(error) != 0 { return unsafe String(cString: strerror(lb_error_reason(error))) }
        guard let text = unsafe ERR_reason_error_string(error) else { return "error \(String(error, radix: 16))" }
        return unsafe String(cString: text)
    }

    /// Whether the first error has this reason.
    static func isFirst(_ reason: Int32) -> Bool { lb_error_reason(ERR_peek_error()) == reason }
}
