// What bytes may stand where in an HTTP/1.1 message, and searches over them. Tables are bit sets in
// registers: no memory is read but the message itself.

/// tchar (RFC 9110 §5.6.2): digits, letters and !#$%&'*+-.^_`|~
@inline(__always)
func isTokenByte(_ byte: UInt8) -> Bool {
    let low: UInt64 = 0x03FF_6CFA_0000_0000
    let high: UInt64 = 0x57FF_FFFF_C7FF_FFFE
    guard byte < 128 else { return false }
    let bits = byte < 64 ? low : high
    return (bits >> UInt64(byte & 63)) & 1 != 0
}

/// What may stand in a request target: everything visible but "#", and bytes above ASCII, which many
/// clients send unescaped and which cannot be misread as a delimiter. No form of target has a fragment
/// (RFC 9112 §3.2), and where one is passed on, routing here and there may see two different paths.
@inline(__always)
func isTargetByte(_ byte: UInt8) -> Bool { byte > 0x20 && byte != 0x7F && byte != UInt8(ascii: "#") }

/// reg-name (RFC 3986 §3.2.2) without the comma, which would make a list of two hosts look like one.
@inline(__always)
func isRegNameByte(_ byte: UInt8) -> Bool {
    let low: UInt64 = 0x2BFF_6FF2_0000_0000
    let high: UInt64 = 0x47FF_FFFE_87FF_FFFE
    guard byte < 128 else { return false }
    let bits = byte < 64 ? low : high
    return (bits >> UInt64(byte & 63)) & 1 != 0
}

@inline(__always)
func isDigit(_ byte: UInt8) -> Bool { byte &- UInt8(ascii: "0") < 10 }

/// ASCII letters to lower case; every other byte stays as it is.
@inline(__always)
func lowercased(_ byte: UInt8) -> UInt8 {
    byte &- UInt8(ascii: "A") < 26 ? byte | 0x20 : byte
}

/// The same for eight bytes at once. In the low seven bits of a byte "A" to "Z" are where adding makes a carry for the
/// one bound and not for the other; bytes above ASCII are no letters.
@inline(__always)
func lowercased(word: UInt64) -> UInt64 {
    let low = word & 0x7F7F_7F7F_7F7F_7F7F
    let fromA = low &+ 0x3F3F_3F3F_3F3F_3F3F
    let aboveZ = low &+ 0x2525_2525_2525_2525
    let letters = (fromA ^ aboveZ) & ~word & 0x8080_8080_8080_8080
    return word | letters >> 2
}

extension StaticString {
    /// A byte of a text that is known to be that long.
    @inline(__always)
    func byte(at index: Int) -> UInt8 {
        precondition(index >= 0 && index < utf8CodeUnitCount)
        return unsafe utf8Start[index]
    }
}

extension Span<UInt8> {
    /// Byte-wise equality.
    @inline(__always)
    func matches(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for index in 0..<count where unsafe self[index] != text.utf8Start[index] { return false }
        return true
    }

    /// Equality where ASCII letters match in either case. `text` must be lower-case letters, digits and "-".
    /// Long texts are compared eight bytes at a time, the last eight overlapping. Setting the bit that tells
    /// the cases apart can make only control bytes look like "-" or a digit; those are looked for.
    @inline(__always)
    func matchesIgnoringCase(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        guard count >= 8 else {
            for index in 0..<count where unsafe lowercased(self[index]) != text.utf8Start[index] { return false }
            return true
        }
        var index = 0
        while true {
            let word = word(at: index)
            let wanted = unsafe UnsafeRawPointer(text.utf8Start).loadUnaligned(fromByteOffset: index, as: UInt64.self)
            guard word | 0x2020_2020_2020_2020 == wanted, !Self.hasControl(word) else { return false }
            if index == count - 8 { return true }
            index = Swift.min(index + 8, count - 8)
        }
    }

    /// Whether a byte stands anywhere. Eight bytes a step, the last eight overlapping.
    func contains(_ byte: UInt8) -> Bool {
        guard count >= 8 else {
            for index in 0..<count where self[index] == byte { return true }
            return false
        }
        let pattern = UInt64(byte) &* 0x0101_0101_0101_0101
        var index = 0
        while true {
            let difference = word(at: index) ^ pattern
            if (difference &- 0x0101_0101_0101_0101) & ~difference & 0x8080_8080_8080_8080 != 0 { return true }
            if index == count - 8 { return false }
            index = Swift.min(index + 8, count - 8)
        }
    }

    /// The eight bytes at `index`, in memory order.
    @inline(__always)
    func word(at index: Int) -> UInt64 {
        unsafe bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self)
    }

    /// Whether the eight bytes at `index` are those of `text`.
    @inline(__always)
    func hasWord(_ text: StaticString, at index: Int) -> Bool {
        precondition(text.utf8CodeUnitCount == 8)
        guard index + 8 <= count else { return false }
        return unsafe word(at: index) == UnsafeRawPointer(text.utf8Start).loadUnaligned(as: UInt64.self)
    }

    /// Whether any of eight ASCII bytes is below 0x20.
    @inline(__always)
    private static func hasControl(_ word: UInt64) -> Bool {
        (word &- 0x2020_2020_2020_2020) & ~word & 0x8080_8080_8080_8080 != 0
    }

    /// The first byte at or after `start` that may not stand in a token; `count` when there is none. Letters
    /// and "-", which field names are made of, go eight at a time.
    @inline(__always)
    func endOfToken(from start: Int) -> Int {
        var index = start
        while index + 8 <= count {
            let word = UInt64(littleEndian: word(at: index))
            let ascii = word & 0x7F7F_7F7F_7F7F_7F7F
            let lower = ascii | 0x2020_2020_2020_2020
            let letters = (lower &+ 0x1F1F_1F1F_1F1F_1F1F) & ~(lower &+ 0x0505_0505_0505_0505)
            let dashes = ~((ascii ^ 0x2D2D_2D2D_2D2D_2D2D) &+ 0x7F7F_7F7F_7F7F_7F7F)
            let others = (~(letters | dashes) | word) & 0x8080_8080_8080_8080
            guard others != 0 else {
                index += 8
                continue
            }
            index += others.trailingZeroBitCount / 8
            guard isTokenByte(self[index]) else { return index }
            index += 1
        }
        while index < count, isTokenByte(self[index]) { index += 1 }
        return index
    }

    /// Equality of two texts where ASCII letters match in either case.
    func matchesIgnoringCase(_ other: Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        for index in indices where lowercased(self[index]) != lowercased(other[index]) { return false }
        return true
    }

    /// The first byte at or after `start` that may not stand in a field value: below 0x20 save HTAB, or
    /// DEL (RFC 9110 §5.5). `count` when there is none. Eight bytes a step.
    func endOfFieldText(from start: Int) -> Int {
        var index = start
        while index + 8 <= count {
            let word = unsafe UInt64(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self))
            let belowSpace = (word &- 0x2020_2020_2020_2020) & ~word
            let del = word ^ 0x7F7F_7F7F_7F7F_7F7F
            let hits = (belowSpace | ((del &- 0x0101_0101_0101_0101) & ~del)) & 0x8080_8080_8080_8080
            guard hits != 0 else {
                index += 8
                continue
            }
            // A borrow can only raise false hits above a true one, so the lowest hit is real.
            index += hits.trailingZeroBitCount / 8
            guard self[index] == 0x09 else { return index }
            index += 1
        }
        while index < count, self[index] == 0x09 || (self[index] >= 0x20 && self[index] != 0x7F) { index += 1 }
        return index
    }
}
