import CShims
import Glibc

/// The numbers of a segment that somebody else made, checked against each other and the file.
/// Unsafe: the kernel fills structures.
extension SpanSegment {
    /// Why a segment of another process image is not taken over.
    public enum AdoptionError: Error, Equatable, CustomStringConvertible {
        /// It cannot be read or mapped.
        case unreadable(Errno)
        /// It is no span segment at all.
        case notASegment
        /// Its layout is another version's.
        case version(UInt32)
        /// The named number contradicts the file's size or the layout.
        case contradiction(field: StaticString, value: UInt64)

        public var description: String {
            switch self {
            case .unreadable(let error): "span segment: cannot be mapped: \(error)"
            case .notASegment: "span segment: the file is none"
            case .version(let version): "span segment: layout version \(version), this is \(LB_SHM_LAYOUT_VERSION)"
            case .contradiction(let field, let value): "span segment: \(field) is \(value), which cannot be"
            }
        }

        public static func == (left: AdoptionError, right: AdoptionError) -> Bool {
            left.description == right.description
        }
    }

    /// What a segment's size follows from.
    struct Shape: Equatable {
        let ringCount: Int
        let ringBytes: Int
        let segmentBytes: Int
    }

    /// More than any machine has workers.
    private static let ringsMax: UInt32 = 65536
    private static let ringBytesMax: UInt64 = 1 << 40

    static func shape(of memory: borrowing FileDescriptor) throws(AdoptionError) -> Shape {
        var status = stat()
        guard unsafe fstat(memory.rawValue, &status) == 0 else { throw .unreadable(Errno.last) }
        var header = lb_segment_header()
        let wanted = MemoryLayout<lb_segment_header>.size
        let count = unsafe pread(memory.rawValue, &header, wanted, 0)
        guard count >= 0 else { throw .unreadable(Errno.last) }
        guard count == wanted else { throw .notASegment }
        return try shape(header, fileBytes: Int(status.st_size))
    }

    static func shape(_ header: lb_segment_header, fileBytes: Int) throws(AdoptionError) -> Shape {
        guard header.magic == LB_SHM_MAGIC else { throw .notASegment }
        guard header.layout_version == LB_SHM_LAYOUT_VERSION else { throw .version(header.layout_version) }
        guard header.rings_offset == UInt64(LB_PAGE_BYTES) else {
            throw .contradiction(field: "rings_offset", value: header.rings_offset)
        }
        guard header.ring_count >= 1, header.ring_count <= ringsMax else {
            throw .contradiction(field: "ring_count", value: UInt64(header.ring_count))
        }
        let ringBytes = header.ring_bytes
        guard ringBytes >= 2 * UInt64(LB_RECORD_BYTES_MAX), ringBytes <= ringBytesMax, ringBytes.nonzeroBitCount == 1
        else { throw .contradiction(field: "ring_bytes", value: ringBytes) }
        let inflight = inflightOffset(ringCount: Int(header.ring_count), ringBytes: Int(ringBytes))
        guard header.inflight_offset == UInt64(inflight) else {
            throw .contradiction(field: "inflight_offset", value: header.inflight_offset)
        }
        let bytes = segmentBytes(ringCount: Int(header.ring_count), ringBytes: Int(ringBytes))
        guard header.segment_bytes == UInt64(bytes) else {
            throw .contradiction(field: "segment_bytes", value: header.segment_bytes)
        }
        guard fileBytes == bytes else { throw .contradiction(field: "the file's size", value: UInt64(fileBytes)) }
        return Shape(ringCount: Int(header.ring_count), ringBytes: Int(ringBytes), segmentBytes: bytes)
    }
}
