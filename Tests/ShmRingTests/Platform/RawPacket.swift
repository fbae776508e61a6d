import Glibc

/// A packet as nobody of ours would send it: with any number of descriptors.
/// Unsafe: builds the control message by hand, in words of the size that the kernel aligns it to.
enum RawPacket {
    static func send(_ socket: Int32, byte: UInt8, passing descriptors: [Int32]) {
        var byte = byte
        // cmsghdr { size_t length; int level; int type } and the descriptors behind it.
        let length = 16 + 4 * descriptors.count
        var control = [UInt64](repeating: 0, count: (length + 7) / 8)
        unsafe control.withUnsafeMutableBytes { bytes in
            unsafe bytes.storeBytes(of: UInt64(length), as: UInt64.self)
            unsafe bytes.storeBytes(of: SOL_SOCKET, toByteOffset: 8, as: Int32.self)
            unsafe bytes.storeBytes(of: Int32(SCM_RIGHTS), toByteOffset: 12, as: Int32.self)
            for (index, descriptor) in descriptors.enumerated() {
                unsafe bytes.storeBytes(of: descriptor, toByteOffset: 16 + 4 * index, as: Int32.self)
            }
            unsafe withUnsafeMutableBytes(of: &byte) { payload in
                var part = unsafe iovec(iov_base: payload.baseAddress, iov_len: 1)
                unsafe withUnsafeMutablePointer(to: &part) { parts in
                    var message = unsafe msghdr()
                    unsafe message.msg_iov = parts
                    unsafe message.msg_iovlen = 1
                    unsafe message.msg_control = bytes.baseAddress
                    unsafe message.msg_controllen = bytes.count
                    _ = unsafe sendmsg(socket, &message, 0)
                }
            }
        }
    }
}
