import CShims
import Glibc
import ShmRing

/// Facts about the machine and this process that the C library knows.
/// Unsafe: every call here fills a buffer or returns a C string.
enum HostFacts {
    /// The variables among `names` that are set.
    static func environment(_ names: [String]) -> [String: String] {
        var values: [String: String] = [:]
        for name in names {
            guard let value = unsafe getenv(name) else { continue }
            values[name] = unsafe String(cString: value)
        }
        return values
    }

    /// The CPUs of the affinity mask; CPU 0 alone should the kernel not say.
    static func availableCPUs() -> [Int32] {
        var cpus = [Int32](repeating: 0, count: 1024)
        let count = unsafe lb_available_cpus(&cpus, Int32(cpus.count))
        return count > 0 ? Array(cpus.prefix(Int(count))) : [0]
    }

    static func hostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard unsafe gethostname(&buffer, buffer.count - 1) == 0 else { return "unknown" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    static var processID: Int32 { getpid() }

    static var isOutputTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

    /// Bytes of the kernel's generator.
    /// - Parameter count: At most 256, which getrandom(2) never cuts short.
    static func randomBytes(count: Int) -> [UInt8] {
        precondition(count <= 256, "getrandom may return less than \(count) bytes")
        var bytes = [UInt8](repeating: 0, count: count)
        while unsafe getrandom(&bytes, count, 0) != count {}
        return bytes
    }

    /// Raises the soft limit of open descriptors to the hard one; children inherit it.
    /// - Returns: The limit that now holds.
    static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        let soft = limit.rlim_cur
        limit.rlim_cur = limit.rlim_max
        guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            return Int(clamping: soft)
        }
        return Int(clamping: limit.rlim_cur)
    }
}
