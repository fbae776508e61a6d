import CShims
import Glibc
import ShmRing

/// A fixed-size byte queue: the kernel or the proxy writes behind `writeIndex`, readers take from
/// `readIndex`.
///
///     0 ── consumed ── readIndex ── readable ── writeIndex ── free ── capacity
///
/// Unsafe inside, safe to use: every access is checked against the indices. Not thread-safe. Buffers come
/// from `BufferPool` and go back there.
@safe
final class ByteBuffer {
    let capacity: Int
    private let base: UnsafeMutablePointer<UInt8>
    private(set) var readIndex = 0
    private(set) var writeIndex = 0

    init(capacity: Int) {
        self.capacity = capacity
        unsafe base = .allocate(capacity: capacity)
    }

    deinit {
        unsafe base.deallocate()
    }

    var readableBytes: Int { writeIndex - readIndex }
    var writableBytes: Int { capacity - writeIndex }
    var isEmpty: Bool { readIndex == writeIndex }

    /// The unread bytes.
    var readable: Span<UInt8> {
        @_lifetime(borrow self)
        borrowing get {
            let bytes = unsafe UnsafeBufferPointer(start: base + readIndex, count: writeIndex - readIndex)
            return unsafe _overrideLifetime(bytes.span, borrowing: self)
        }
    }

    /// Drops `count` unread bytes from the front.
    func consume(_ count: Int) {
        precondition(count >= 0 && count <= readableBytes, "consume \(count) of \(readableBytes)")
        readIndex += count
        if readIndex == writeIndex { reset() }
    }

    /// Drops unread bytes from the end, so that `count` are left.
    func truncate(to count: Int) {
        precondition(count >= 0 && count <= readableBytes, "truncate \(readableBytes) to \(count)")
        writeIndex = readIndex + count
    }

    func reset() {
        readIndex = 0
        writeIndex = 0
    }

    /// Moves the unread bytes to the front.
    func compact() {
        guard readIndex > 0 else { return }
        let count = readableBytes
        unsafe base.update(from: base + readIndex, count: count)
        readIndex = 0
        writeIndex = count
    }

    func append(_ bytes: Span<UInt8>) {
        let count = bytes.count
        precondition(count <= writableBytes, "append \(count) to \(writableBytes) free bytes")
        guard count > 0 else { return }
        unsafe bytes.withUnsafeBufferPointer { source in
            unsafe (base + writeIndex).update(from: source.baseAddress!, count: count)
        }
        writeIndex += count
    }

    func append(_ text: StaticString) {
        let count = text.utf8CodeUnitCount
        precondition(count <= writableBytes, "append \(count) to \(writableBytes) free bytes")
        unsafe (base + writeIndex).update(from: text.utf8Start, count: count)
        writeIndex += count
    }

    func append(string text: String) {
        append(text.utf8.span)
    }

    func append(_ byte: UInt8) {
        precondition(writableBytes >= 1, "no room for a byte")
        unsafe base[writeIndex] = byte
        writeIndex += 1
    }

    /// Appends decimal digits.
    func append(decimal value: Int) {
        precondition(value >= 0, "negative number \(value)")
        var divisor = 1
        while value / divisor >= 10 { divisor *= 10 }
        var rest = value
        while divisor > 0 {
            append(UInt8(ascii: "0") + UInt8(rest / divisor))
            rest %= divisor
            divisor /= 10
        }
    }

    /// Appends lower-case hexadecimal digits, leading zeros up to `digits`.
    func append(hex value: UInt64, digits: Int) {
        precondition(digits <= 16 && digits <= writableBytes, "no room for \(digits) digits")
        let high = Self.hexDigits(UInt32(truncatingIfNeeded: value >> 32))
        let low = Self.hexDigits(UInt32(truncatingIfNeeded: value))
        if digits == 16 {
            let place = unsafe UnsafeMutableRawPointer(base + writeIndex)
            unsafe place.storeBytes(of: high.littleEndian, as: UInt64.self)
            unsafe place.storeBytes(of: low.littleEndian, toByteOffset: 8, as: UInt64.self)
            writeIndex += 16
            return
        }
        for index in (16 - digits)..<16 {
            let word = index < 8 ? high : low
            unsafe base[writeIndex] = UInt8(truncatingIfNeeded: word >> UInt64(8 * (index & 7)))
            writeIndex += 1
        }
    }

    /// The eight digits of a number, the first in the lowest byte: its half bytes are spread over a word
    /// and turned into characters all at once.
    private static func hexDigits(_ value: UInt32) -> UInt64 {
        var word = UInt64(value)
        word = (word & 0xFFFF) << 32 | (word & 0xFFFF_0000) >> 16
        word = (word & 0x0000_FF00_0000_FF00) >> 8 | (word & 0x0000_00FF_0000_00FF) << 16
        word = (word & 0x00F0_00F0_00F0_00F0) >> 4 | (word & 0x000F_000F_000F_000F) << 8
        let isLetter = ((word + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101
        return word + 0x3030_3030_3030_3030 + isLetter * UInt64(UInt8(ascii: "a") - UInt8(ascii: "0") - 10)
    }

    /// Lets `body` write into the free part.
    /// - Parameter body: Returns how many bytes it wrote; 0 or less: none.
    /// - Returns: What `body` returned.
    func fill(_ body: (UnsafeMutableRawBufferPointer) -> Int32) -> Int32 {
        let count = unsafe body(UnsafeMutableRawBufferPointer(start: base + writeIndex, count: writableBytes))
        precondition(count <= writableBytes, "\(count) bytes into \(writableBytes) free ones")
        if count > 0 { writeIndex += Int(count) }
        return count
    }

    /// One recv(2) into the free part.
    func receive(from descriptor: Int32) -> IOResult {
        precondition(writableBytes > 0, "receive into a full buffer")
        while true {
            let count = unsafe recv(descriptor, base + writeIndex, writableBytes, 0)
            if count > 0 {
                writeIndex += count
                return .bytes(count)
            }
            if count == 0 { return .endOfStream }
            if errno != EINTR { return errno == EAGAIN ? .wouldBlock : .failed(Errno.last) }
        }
    }

    /// One send(2) of up to `countMax` unread bytes; what was taken is consumed.
    func send(to descriptor: Int32, countMax: Int = .max) -> IOResult {
        let wanted = min(countMax, readableBytes)
        while true {
            let count = unsafe Glibc.send(descriptor, base + readIndex, wanted, Int32(MSG_NOSIGNAL))
            if count >= 0 {
                consume(count)
                return .bytes(count)
            }
            if errno != EINTR { return errno == EAGAIN ? .wouldBlock : .failed(Errno.last) }
        }
    }

    /// One sendmsg(2) of all of this buffer and then up to `countMax` bytes of `next`; what was taken is
    /// consumed from both. The result counts both.
    func send(to descriptor: Int32, then next: ByteBuffer, countMax: Int) -> IOResult {
        let nextBytes = min(countMax, next.readableBytes)
        var parts: InlineArray<2, iovec> = [
            unsafe iovec(iov_base: base + readIndex, iov_len: readableBytes),
            unsafe iovec(iov_base: next.base + next.readIndex, iov_len: nextBytes),
        ]
        while true {
            let count = unsafe withUnsafeMutableBytes(of: &parts) { raw in
                var message = unsafe msghdr()
                unsafe message.msg_iov = raw.baseAddress!.assumingMemoryBound(to: iovec.self)
                unsafe message.msg_iovlen = 2
                return unsafe sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 {
                let own = min(count, readableBytes)
                consume(own)
                next.consume(count - own)
                return .bytes(count)
            }
            if errno != EINTR { return errno == EAGAIN ? .wouldBlock : .failed(Errno.last) }
        }
    }

    /// One write(2) of up to `countMax` unread bytes to a file or pipe; what was taken is consumed.
    func write(to descriptor: Int32, countMax: Int = .max) -> IOResult {
        let wanted = min(countMax, readableBytes)
        while true {
            let count = unsafe Glibc.write(descriptor, base + readIndex, wanted)
            if count >= 0 {
                consume(count)
                return .bytes(count)
            }
            if errno != EINTR { return errno == EAGAIN ? .wouldBlock : .failed(Errno.last) }
        }
    }
}
