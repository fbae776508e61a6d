import CShims
import Glibc
import ShmRing

/// The keys that session tickets are sealed with (RFC 5077 §4), the same in every worker without a word between them.
///
/// The master draws one secret. Time is cut into epochs; the secret of an epoch is derived from that of the one before
/// and takes its place, so every process that has the first arrives at the same keys by itself:
///
///     secret e ──HMAC "next"──► secret e+1 ──► …
///        └──HMAC "name", "cipher", "mac"──► keys of e
///
/// Tickets of the epoch before are still opened, so the secret that is kept is the one of that epoch. Whoever reads
/// the memory of a process that has moved on learns no key older than that.
///
/// Secret and keys stay in one place, where C works on them: Swift moves values about as it likes, and would leave
/// copies behind that nobody can wipe.
/// Unsafe: owns that memory, wipes and frees it once.
@safe
public final class TicketKeys: @unchecked Sendable {
    public static let epochSeconds: UInt64 = 8 * 3600
    private static let secretBytes = 32

    /// The one whose keys seal.
    private var epoch: UInt64
    /// Of the secret: the epoch before, or `epoch` itself where nothing was sealed before.
    private var secretEpoch: UInt64
    private let secrets: UnsafeMutablePointer<lb_ticket_secrets>
    private var hasPrevious = false

    /// Draws a secret.
    public convenience init(nowSeconds: UInt64 = Clock.realtimeNs() / 1_000_000_000) {
        unsafe self.init(nowSeconds: nowSeconds) { unsafe RAND_bytes($0.baseAddress!, Int32($0.count)) == 1 }
    }

    /// - Parameter fill: Puts a secret into its place.
    init(nowSeconds: UInt64, _ fill: (UnsafeMutableBufferPointer<UInt8>) -> Bool) {
        epoch = nowSeconds / Self.epochSeconds
        secretEpoch = epoch
        unsafe secrets = .allocate(capacity: 1)
        unsafe secrets.initialize(to: lb_ticket_secrets())
        precondition(unsafe fill(secret), "no random bytes: \(TLSErrors.take() ?? "")")
        derived(unsafe lb_ticket_keys_of(lb_ticket_secret(secrets), lb_ticket_current(secrets)))
    }

    deinit {
        unsafe OPENSSL_cleanse(secrets, MemoryLayout<lb_ticket_secrets>.size)
        unsafe secrets.deallocate()
    }

    private var secret: UnsafeMutableBufferPointer<UInt8> {
        unsafe UnsafeMutableBufferPointer(start: lb_ticket_secret(secrets), count: Self.secretBytes)
    }

    /// What another image of the master needs to go on with the same keys: the secret's epoch, then the secret.
    public var exported: [UInt8] {
        unsafe (0..<8).map { UInt8(truncatingIfNeeded: secretEpoch >> (8 * UInt64($0))) } + Array(secret)
    }

    /// Goes on with the keys that `exported` came from. Anything else is left alone.
    public func adopt(_ exported: [UInt8], nowSeconds: UInt64 = Clock.realtimeNs() / 1_000_000_000) {
        guard exported.count == 8 + Self.secretBytes else { return }
        secretEpoch = exported.prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        epoch = secretEpoch
        for index in 0..<Self.secretBytes { unsafe secret[index] = exported[8 + index] }
        derived(unsafe lb_ticket_keys_of(lb_ticket_secret(secrets), lb_ticket_current(secrets)))
        hasPrevious = false
        advance(nowSeconds: nowSeconds)
    }

    /// Moves on to the epoch of the moment. A clock that goes back changes nothing.
    public func advance(nowSeconds: UInt64 = Clock.realtimeNs() / 1_000_000_000) {
        let wanted = nowSeconds / Self.epochSeconds
        guard wanted > epoch else { return }
        // A clock that jumps ahead by years costs a millisecond, not a minute.
        for _ in 0..<min(wanted - 1 - secretEpoch, 10_000) { derived(unsafe lb_ticket_next(secrets)) }
        secretEpoch = wanted - 1
        derived(unsafe lb_ticket_turn(secrets))
        hasPrevious = true
        epoch = wanted
    }

    /// What seals.
    var current: UnsafePointer<lb_ticket_keys> { unsafe UnsafePointer(lb_ticket_current(secrets)) }

    /// The keys that opened tickets of this name, and whether the ticket should be replaced.
    func keys(named name: UnsafeRawBufferPointer) -> (keys: UnsafePointer<lb_ticket_keys>, isOld: Bool)? {
        if unsafe Self.isName(name, of: current) { return unsafe (current, false) }
        guard hasPrevious, let previous = unsafe lb_ticket_previous(secrets) else { return nil }
        return unsafe Self.isName(name, of: previous) ? (UnsafePointer(previous), true) : nil
    }

    private static func isName(_ name: UnsafeRawBufferPointer, of keys: UnsafePointer<lb_ticket_keys>) -> Bool {
        guard name.count == 16, let bytes = name.baseAddress else { return false }
        return unsafe memcmp(bytes, keys, name.count) == 0
    }

    private func derived(_ result: Int32) {
        precondition(result == 1, "HMAC fails: \(TLSErrors.take() ?? "")")
    }
}
