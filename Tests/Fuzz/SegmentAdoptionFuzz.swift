import CShims
import Glibc

// Any bytes as the header of a segment that another process image made. Checked: it is refused, or every number agrees
// with the file's size, so that nothing that is derived from them leads outside. Unsafe: views bytes as a header.
//
// Input: eight bytes for the file's size, then the header; what is missing of it is that of a sound segment.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let bytes = unsafe FuzzInput(start, count).bytes
    guard bytes.count >= 8 else { return 0 }
    let fileBytes = bytes.prefix(8).reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
    var header = soundHeader()
    unsafe withUnsafeMutableBytes(of: &header) { target in
        for (index, byte) in bytes.dropFirst(8).prefix(target.count).enumerated() { unsafe target[index] ^= byte }
    }
    check(header, fileBytes: fileBytes)
    check(header, fileBytes: header.segment_bytes)
    return 0
}

private func check(_ header: lb_segment_header, fileBytes: UInt64) {
    guard let size = Int(exactly: fileBytes), let shape = try? SpanSegment.shape(header, fileBytes: size)
    else { return }
    require(shape.segmentBytes == size, "a segment is as large as its file")
    require(shape.ringCount >= 1 && shape.ringBytes >= 2 * Int(LB_RECORD_BYTES_MAX), "rings can hold a record")
    require(shape.ringBytes.nonzeroBitCount == 1, "a ring's offset is a count's low bits")
    let rings = (shape.ringCount + 1) * (shape.ringBytes + Int(LB_PAGE_BYTES))
    require(rings + Int(LB_PAGE_BYTES) < shape.segmentBytes, "every ring lies inside")
}

private func soundHeader() -> lb_segment_header {
    let bytes = SpanSegment.segmentBytes(ringCount: 2, ringBytes: 131_072)
    var header = lb_segment_header()
    header.magic = UInt64(LB_SHM_MAGIC)
    header.layout_version = LB_SHM_LAYOUT_VERSION
    header.ring_count = 2
    header.ring_bytes = 131_072
    header.segment_bytes = UInt64(bytes)
    header.rings_offset = UInt64(LB_PAGE_BYTES)
    header.inflight_offset = UInt64(SpanSegment.inflightOffset(ringCount: 2, ringBytes: 131_072))
    return header
}
