import Glibc
import ShmRing

/// Memory that grows, for the bodies of posts.
///
/// Reused from post to post, so that a busy exporter allocates nothing. Whoever holds a `PostBody` keeps its
/// storage alive and unchanged; only one writer at a time has a storage.
@safe
final class ByteStorage {
    fileprivate var base: UnsafeMutableRawPointer
    fileprivate var capacityBytes: Int

    init(capacityBytes: Int = 64 * 1024) {
        self.capacityBytes = max(capacityBytes, 64)
        unsafe base = Self.checked(malloc(self.capacityBytes), bytes: self.capacityBytes)
    }

    deinit {
        unsafe free(base)
    }

    fileprivate func grow(toFit bytes: Int) {
        let wanted = max(bytes, capacityBytes * 2)
        unsafe base = Self.checked(realloc(base, wanted), bytes: wanted)
        capacityBytes = wanted
    }

    private static func checked(_ address: UnsafeMutableRawPointer?, bytes: Int) -> UnsafeMutableRawPointer {
        guard let address = unsafe address else { preconditionFailure("no memory for \(bytes) bytes of spans") }
        return unsafe address
    }
}

/// Finished bytes that no longer change.
@safe
struct PostBody {
    let storage: ByteStorage
    let count: Int

    /// Lends the bytes, whose address stays the same for as long as `storage` lives.
    func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        unsafe body(UnsafeRawBufferPointer(start: storage.base, count: count))
    }

    /// A copy, for what is not on the way of every span.
    var bytes: [UInt8] { unsafe withUnsafeBytes { unsafe [UInt8]($0) } }
}

/// Appends bytes to a `ByteStorage`.
///
/// Unsafe inside, safe outside: every append checks the room first and every patch its place. Sources that
/// live in shared memory are copied first and judged in the copy, because their writer may go on writing.
@safe
struct ByteWriter: ~Copyable {
    private var storage: ByteStorage
    private var base: UnsafeMutableRawPointer
    private var capacityBytes: Int
    private(set) var count = 0

    init(_ storage: ByteStorage = ByteStorage()) {
        self.storage = storage
        unsafe base = storage.base
        capacityBytes = storage.capacityBytes
    }

    /// Gives the bytes away and goes on, empty, in another storage.
    mutating func take(replacement: ByteStorage) -> PostBody {
        let body = PostBody(storage: storage, count: count)
        self = ByteWriter(replacement)
        return body
    }

    /// Makes sure that `bytes` more bytes fit.
    @inline(__always)
    private mutating func reserve(_ bytes: Int) {
        if bytes > capacityBytes - count { grow(toFit: count + bytes) }
    }

    @inline(never)
    private mutating func grow(toFit bytes: Int) {
        storage.grow(toFit: bytes)
        unsafe base = storage.base
        capacityBytes = storage.capacityBytes
    }

    @inline(__always)
    mutating func append(_ byte: UInt8) {
        reserve(1)
        unsafe base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count += 1
    }

    /// Appends an integer's bytes, least significant first.
    @inline(__always)
    mutating func append(littleEndian value: some FixedWidthInteger & BitwiseCopyable) {
        store(value.littleEndian)
    }

    /// Appends an integer's bytes, most significant first.
    @inline(__always)
    mutating func append(bigEndian value: some FixedWidthInteger & BitwiseCopyable) {
        store(value.bigEndian)
    }

    @inline(__always)
    private mutating func store<T: BitwiseCopyable>(_ value: T) {
        reserve(MemoryLayout<T>.size)
        unsafe base.storeBytes(of: value, toByteOffset: count, as: T.self)
        count += MemoryLayout<T>.size
    }

    /// Appends a base 128 varint (protobuf encoding guide, "Base 128 Varints").
    @inline(__always)
    mutating func append(varint value: UInt64) {
        reserve(10)
        var rest = value
        while rest >= 0x80 {
            unsafe base.storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, toByteOffset: count, as: UInt8.self)
            count += 1
            rest >>= 7
        }
        unsafe base.storeBytes(of: UInt8(truncatingIfNeeded: rest), toByteOffset: count, as: UInt8.self)
        count += 1
    }

    /// Appends sixteen hexadecimal digits.
    mutating func append(hex value: UInt64) {
        reserve(16)
        for place in 0..<16 {
            let digit = Self.hexDigit(value >> UInt64(60 - 4 * place) & 15)
            unsafe base.storeBytes(of: digit, toByteOffset: count + place, as: UInt8.self)
        }
        count += 16
    }

    /// Appends decimal digits without leading zeros.
    mutating func append(decimal value: UInt64) {
        var digits = 1
        var power: UInt64 = 10
        while digits < 20, value >= power {
            digits += 1
            power = power.multipliedReportingOverflow(by: 10).partialValue
        }
        reserve(digits)
        var rest = value
        for place in stride(from: digits - 1, through: 0, by: -1) {
            let digit = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            unsafe base.storeBytes(of: digit, toByteOffset: count + place, as: UInt8.self)
            rest /= 10
        }
        count += digits
    }

    static func hexDigit(_ value: UInt64) -> UInt8 {
        UInt8(truncatingIfNeeded: value) + (value < 10 ? UInt8(ascii: "0") : UInt8(ascii: "a") - 10)
    }

    /// Appends a ready-made block with a few wide moves and no call to memcpy.
    @inline(__always)
    mutating func append(_ block: ByteBlock) {
        let length = block.count
        precondition(length <= ByteBlock.bytesMax)
        reserve(MemoryLayout<SIMD64<UInt8>>.size)
        unsafe base.storeBytes(of: block.bytes, toByteOffset: count, as: SIMD64<UInt8>.self)
        count += length
    }

    mutating func append(_ bytes: [UInt8]) {
        reserve(bytes.count)
        unsafe bytes.withUnsafeBufferPointer { source in
            guard let start = source.baseAddress else { return }
            unsafe (base + count).copyMemory(from: start, byteCount: source.count)
        }
        count += bytes.count
    }

    mutating func append(_ text: StaticString) {
        let bytes = text.utf8CodeUnitCount
        reserve(bytes)
        unsafe (base + count).copyMemory(from: text.utf8Start, byteCount: bytes)
        count += bytes
    }

    /// Appends bytes of a record.
    /// - Returns: The bitwise or of all of them: below 0x80 means ASCII.
    @inline(__always)
    mutating func append(_ source: RawSpan, _ range: Range<Int>) -> UInt8 {
        precondition(range.lowerBound >= 0 && range.upperBound <= source.byteCount)
        reserve(range.count)
        var offset = range.lowerBound
        var words: UInt64 = 0
        while offset &+ 8 <= range.upperBound {
            let word = unsafe source.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)
            unsafe base.storeBytes(of: word, toByteOffset: count, as: UInt64.self)
            words |= word
            count &+= 8
            offset &+= 8
        }
        var all: UInt8 = words & 0x8080_8080_8080_8080 == 0 ? 0 : 0x80
        while offset < range.upperBound {
            let byte = unsafe source.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
            unsafe base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
            all |= byte
            count &+= 1
            offset &+= 1
        }
        return all
    }

    /// Writes over a byte that is there already.
    @inline(__always)
    mutating func patch(_ byte: UInt8, at offset: Int) {
        precondition(offset >= 0 && offset < count)
        unsafe base.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
    }

    /// Writes a 32-bit word, least significant byte first, over bytes that are there already.
    @inline(__always)
    mutating func patch(littleEndian value: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset &+ 4 <= count)
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt32.self)
    }

    /// Forgets everything from `length` on.
    mutating func truncate(to length: Int) {
        precondition(length >= 0 && length <= count)
        count = length
    }

    /// Lends what was written from `start` on.
    func withBytes<R>(from start: Int, _ body: (Span<UInt8>) -> R) -> R {
        precondition(start >= 0 && start <= count)
        let bytes = unsafe UnsafeRawBufferPointer(start: base + start, count: count - start)
        return unsafe bytes.withMemoryRebound(to: UInt8.self) { unsafe body($0.span) }
    }
}

extension ByteWriter {
    /// Appends a template with its gaps filled from a record.
    ///
    /// Room for all of it is made once. A text is read in pieces of sixteen bytes, up to fifteen bytes behind its end,
    /// which the record has (`RequestReader`).
    /// - Returns: False when a text is not ASCII; then nothing was appended.
    mutating func append(
        _ template: RequestTemplate, _ fill: RequestFill, of record: RawSpan
    ) -> Bool {
        // No text stands in a tree more than three times.
        let bytesMax = template.fixedBytes + 3 * record.byteCount
        reserve(bytesMax)
        let start = unsafe base + count
        // The record outlives this call, and with it the address.
        let source = unsafe record.withUnsafeBytes { $0.baseAddress! }
        let (bytes, isASCII) = unsafe template.fill(start, fill, from: source)
        precondition(bytes <= bytesMax - RequestTemplate.overshootBytes)
        if isASCII { count += bytes }
        return isASCII
    }
}

/// A short byte sequence made once and appended often. The last of the vector's bytes is the length.
struct ByteBlock {
    static let bytesMax = 63
    static let empty = ByteBlock([])

    let bytes: SIMD64<UInt8>

    init(_ content: [UInt8]) {
        precondition(content.count <= Self.bytesMax, "a block of \(content.count) bytes")
        var bytes = SIMD64<UInt8>(repeating: 0)
        for (index, byte) in content.enumerated() { bytes[index] = byte }
        bytes[Self.bytesMax] = UInt8(content.count)
        self.bytes = bytes
    }

    var count: Int { Int(bytes[Self.bytesMax]) }
}

extension StaticString {
    /// The text's UTF-8.
    var bytes: [UInt8] { withUTF8Buffer { unsafe [UInt8]($0) } }
}
