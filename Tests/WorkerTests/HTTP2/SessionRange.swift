import CShims
import Glibc
import Testing

/// Memory of one session, from a pool of its own, used as libnghttp2 does.
@safe
final class SessionRange {
    /// A block of memory with what the test wants in it.
    @safe
    struct Block: Equatable {
        fileprivate let pointer: UnsafeMutableRawPointer?
        let size: Int

        static func == (one: Block, other: Block) -> Bool { unsafe one.pointer == other.pointer }

        var exists: Bool { unsafe pointer != nil }
        var isAligned: Bool { unsafe UInt(bitPattern: pointer) % 16 == 0 }

        func fill(_ byte: UInt8, count: Int? = nil) {
            unsafe pointer?.initializeMemory(as: UInt8.self, repeating: byte, count: count ?? size)
        }

        func holds(_ byte: UInt8, count: Int? = nil) -> Bool {
            unsafe UnsafeRawBufferPointer(start: pointer, count: count ?? size).allSatisfy { $0 == byte }
        }

        /// Resident pages of the range, for the first block of one.
        var residentPages: Int {
            let base = unsafe UnsafeMutableRawPointer(bitPattern: UInt(bitPattern: pointer) & ~4095)
            var pages = [UInt8](repeating: 0, count: 16)
            #expect(unsafe mincore(base, 65536, &pages) == 0)
            return pages.count { $0 & 1 != 0 }
        }
    }

    /// Not under AddressSanitizer.
    static var exists: Bool { SessionRange() != nil }
    static var shortFrameBytes: Int { lb_session_memory_short_frame_bytes() }

    private let pool: OpaquePointer
    private var memory: OpaquePointer
    private var functions: nghttp2_mem

    init?() {
        guard let pool = unsafe lb_session_pool_new(), let memory = unsafe lb_session_memory_take(pool) else {
            return nil
        }
        unsafe self.pool = pool
        unsafe self.memory = memory
        unsafe functions = lb_session_memory_functions(memory)
    }

    deinit {
        unsafe lb_session_memory_give(memory)
        unsafe lb_session_pool_free(pool)
    }

    // MARK: What libnghttp2 calls

    func take(_ size: Int) -> Block {
        unsafe Block(pointer: functions.malloc(size, functions.mem_user_data), size: size)
    }

    func takeZeroed(_ count: Int, _ size: Int) -> Block {
        unsafe Block(
            pointer: functions.calloc(count, size, functions.mem_user_data),
            size: count.multipliedReportingOverflow(by: size).0)
    }

    func resize(_ block: Block?, _ size: Int) -> Block {
        unsafe Block(pointer: functions.realloc(block?.pointer, size, functions.mem_user_data), size: size)
    }

    func give(_ block: Block?) { unsafe functions.free(block?.pointer, functions.mem_user_data) }

    // MARK: What the session calls

    func isMade() { unsafe lb_session_memory_made(memory) }

    func pack(sentLongFrames: Bool = false) -> Bool {
        unsafe lb_session_memory_pack(memory, sentLongFrames ? 1 : 0) == 1
    }

    func wake() { unsafe lb_session_memory_wake(memory) }

    var packedBytes: Int { unsafe lb_session_memory_packed_bytes(memory) }

    // MARK: The pool

    /// Gives the memory back and takes some again.
    /// - Returns: Whether it is the same.
    func renew() -> Bool {
        let before = unsafe memory
        unsafe lb_session_memory_give(memory)
        guard let memory = unsafe lb_session_memory_take(pool) else { preconditionFailure("there was memory before") }
        unsafe self.memory = memory
        unsafe functions = lb_session_memory_functions(memory)
        return memory == before
    }

    var mappedBytes: Int { unsafe lb_session_pool_mapped(pool) }

    /// What the pool maps while there are `count` more sessions.
    /// - Returns: Nil when one of them got no memory, or that of another.
    func mappedBytes(with count: Int) -> Int? {
        let places = (0..<count).map { _ in UInt(bitPattern: unsafe lb_session_memory_take(pool)) }
        let mapped = unsafe lb_session_pool_mapped(pool)
        for place in places { unsafe lb_session_memory_give(OpaquePointer(bitPattern: place)) }
        let areDistinct = Set(places).count == count && !places.contains(0)
        return areDistinct ? mapped : nil
    }
}
