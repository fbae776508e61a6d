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
/// Unsafe: hands bytes to OpenSSL and wipes them afterwards.
@safe
public final class TicketKeys: @unchecked Sendable {
    /// What seals the tickets of one epoch.
    struct Keys {
        var name: InlineArray<16, UInt8>
        var cipher: InlineArray<32, UInt8>
        var mac: InlineArray<32, UInt8>
    }

    public static let epochSeconds: UInt64 = 8 * 3600

    /// The one whose keys seal.
    private var epoch: UInt64
    /// Of `secretEpoch`: the epoch before, or `epoch` itself where nothing was sealed before.
    private var secret: InlineArray<32, UInt8>
    private var secretEpoch: UInt64
    private(set) var current: Keys
    private(set) var previous: Keys?

    /// Draws a secret.
    public convenience init(nowSeconds: UInt64 = Clock.realtimeNs() / 1_000_000_000) {
        var secret = InlineArray<32, UInt8>(repeating: 0)
        let isDrawn = unsafe withUnsafeMutableBytes(of: &secret) { unsafe RAND_bytes($0.baseAddress!, 32) }
        precondition(isDrawn == 1, "no random bytes: \(TLSErrors.take() ?? "")")
        self.init(secret: secret, nowSeconds: nowSeconds)
    }

    init(secret: InlineArray<32, UInt8>, nowSeconds: UInt64) {
        self.secret = secret
        epoch = nowSeconds / Self.epochSeconds
        secretEpoch = epoch
        current = Self.keys(of: secret)
    }

    deinit {
        unsafe withUnsafeMutableBytes(of: &secret) { unsafe OPENSSL_cleanse($0.baseAddress!, $0.count) }
        unsafe withUnsafeMutableBytes(of: &current) { unsafe OPENSSL_cleanse($0.baseAddress!, $0.count) }
        unsafe withUnsafeMutableBytes(of: &previous) { unsafe OPENSSL_cleanse($0.baseAddress!, $0.count) }
    }

    /// What another image of the master needs to go on with the same keys: the secret's epoch, then the secret.
    public var exported: [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: secretEpoch >> (8 * UInt64($0))) } + secret.indices.map { secret[$0] }
    }

    /// Goes on with the keys that `exported` came from. Anything else is left alone.
    public func adopt(_ exported: [UInt8], nowSeconds: UInt64 = Clock.realtimeNs() / 1_000_000_000) {
        guard exported.count == 40 else { return }
        secretEpoch = exported.prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        epoch = secretEpoch
        for index in secret.indices { secret[index] = exported[8 + index] }
        current = Self.keys(of: secret)
        previous = nil
        advance(nowSeconds: nowSeconds)
    }

    /// Moves on to the epoch of the moment. A clock that goes back changes nothing.
    public func advance(nowSeconds: UInt64 = Clock.realtimeNs() / 1_000_000_000) {
        let wanted = nowSeconds / Self.epochSeconds
        guard wanted > epoch else { return }
        // A clock that jumps ahead by years costs a millisecond, not a minute.
        for _ in 0..<min(wanted - 1 - secretEpoch, 10_000) { secret = Self.derived(secret, "next") }
        secretEpoch = wanted - 1
        previous = Self.keys(of: secret)
        current = Self.keys(of: Self.derived(secret, "next"))
        epoch = wanted
    }

    /// The keys that opened tickets of this name, and whether the ticket should be replaced.
    func keys(named name: UnsafeRawBufferPointer) -> (keys: Keys, isOld: Bool)? {
        if unsafe Self.isEqual(current.name, name) { return (current, false) }
        if let previous, unsafe Self.isEqual(previous.name, name) { return (previous, true) }
        return nil
    }

    private static func isEqual(_ own: InlineArray<16, UInt8>, _ other: UnsafeRawBufferPointer) -> Bool {
        guard other.count == 16 else { return false }
        for index in 0..<16 where unsafe own[index] != other[index] { return false }
        return true
    }

    private static func keys(of secret: InlineArray<32, UInt8>) -> Keys {
        let long = derived(secret, "name")
        var name = InlineArray<16, UInt8>(repeating: 0)
        for index in 0..<16 { name[index] = long[index] }
        return Keys(name: name, cipher: derived(secret, "cipher"), mac: derived(secret, "mac"))
    }

    private static func derived(_ secret: InlineArray<32, UInt8>, _ label: StaticString) -> InlineArray<32, UInt8> {
        var result = InlineArray<32, UInt8>(repeating: 0)
        let isDerived = unsafe withUnsafeMutableBytes(of: &result) { output in
            unsafe withUnsafeBytes(of: secret) { key in
                unsafe label.utf8Start.withMemoryRebound(to: CChar.self, capacity: label.utf8CodeUnitCount) { text in
                    unsafe lb_derive(
                        key.baseAddress!.assumingMemoryBound(to: UInt8.self), text, label.utf8CodeUnitCount,
                        output.baseAddress!.assumingMemoryBound(to: UInt8.self))
                }
            }
        }
        precondition(isDerived == 1, "HMAC fails: \(TLSErrors.take() ?? "")")
        return result
    }
}
