import ShmRing

extension RequestTemplate {
    /// Wide moves may write that far behind the end, and read as far behind the literals.
    static let overshootBytes = 64

    /// Writes the whole template, its gaps filled, to memory that has room for it.
    /// - Returns: How many bytes that was, and whether all texts were ASCII.
    func fill(
        _ start: UnsafeMutableRawPointer, _ fill: RequestFill, from record: UnsafeRawPointer
    ) -> (bytes: Int, isASCII: Bool) {
        var filler = unsafe TemplateFiller(out: start, literal: literals, record: record)
        var next = unsafe steps
        let end = unsafe steps + stepCount
        while unsafe next < end {
            let step = unsafe next.pointee
            unsafe next += 1
            filler.takeLiteral(Int(step.literalBytes))
            switch step.kind {
            case .word: filler.takeWord(fill.word(Int(step.field)), bytes: Int(step.width))
            case .text: unsafe filler.takeText(fill.texts[Int(step.field)], keyBytes: Int(step.width))
            case .connection: filler.takeConnection(fill.connection, keyBytes: Int(step.width))
            case .span: filler.takeSpan(step, fill)
            case .link: filler.takeLink(fill, keyBytes: Int(step.width))
            case .close: filler.closeMessage()
            }
        }
        return (unsafe filler.out - start, filler.isASCII)
    }
}

/// Writes one template, step by step. Only `RequestTemplate.fill` uses it, for whom room was made; sums of lengths
/// that are known to be small are not checked again.
@safe
struct TemplateFiller {
    private typealias Tag = OTLPProtobufEncoder.Tag
    private typealias Word = RequestField.Word
    /// What a step writes at most, literals and texts left out.
    static let stepBytesMax = 80
    /// Tag and value of Link.flags.
    static let linkFlagsBytes = 5

    private(set) var out: UnsafeMutableRawPointer
    private var literal: UnsafeRawPointer
    private let record: UnsafeRawPointer
    /// Where the length of the present message stands.
    private var length: UnsafeMutableRawPointer
    /// The bitwise or of all texts, and of what stands behind them.
    private var allText = SIMD2<UInt64>.zero

    /// Bytes behind a text count too, so that a record may be taken for one that is not. That costs time, no more.
    var isASCII: Bool { (allText[0] | allText[1]) & 0x8080_8080_8080_8080 == 0 }

    init(out: UnsafeMutableRawPointer, literal: UnsafeRawPointer, record: UnsafeRawPointer) {
        unsafe self.out = out
        unsafe self.literal = literal
        unsafe self.record = record
        unsafe length = out
    }

    @inline(__always)
    mutating func takeWord(_ word: UInt64, bytes: Int) {
        unsafe out.storeBytes(of: word, as: UInt64.self)
        unsafe out += bytes
    }

    /// Everything of a span but its attributes.
    @inline(__always)
    mutating func takeSpan(_ step: RequestTemplate.Step, _ fill: RequestFill) {
        let index = Int(step.field)
        put(UInt8(Tag.scopeSpansSpan), 1)
        unsafe length = out
        unsafe out += 4
        put(UInt16(Tag.spanTraceID) | 16 << 8, 2)
        put(fill.word(Word.traceHigh), 8)
        put(fill.word(Word.traceLow), 8)
        put(UInt16(Tag.spanID) | 8 << 8, 2)
        put(fill.word(Word.ids &+ index), 8)
        if step.parent != RequestTemplate.Step.noParent {
            put(UInt16(Tag.spanParentID) | 8 << 8, 2)
            put(fill.word(Int(step.parent)), 8)
        }
        takeLiteral(Int(step.width))
        put(Tag.spanStart, 1)
        put(fill.word(Word.starts &+ index), 8)
        put(Tag.spanEnd, 1)
        put(fill.word(Word.ends &+ index), 8)
        put(Tag.spanFlags, 2)
        put(fill.word(index == 0 ? Word.rootFlags : Word.childFlags), 4)
    }

    /// Stores a number of which `bytes` bytes count.
    @inline(__always)
    private mutating func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ bytes: Int) {
        unsafe out.storeBytes(of: value, as: T.self)
        unsafe out += bytes
    }

    /// Most literals are one move.
    @inline(__always)
    mutating func takeLiteral(_ bytes: Int) {
        let block = unsafe literal.loadUnaligned(as: SIMD64<UInt8>.self)
        unsafe out.storeBytes(of: block, as: SIMD64<UInt8>.self)
        if bytes > 64 { takeLongLiteral(bytes) }
        unsafe literal += bytes
        unsafe out += bytes
    }

    @inline(never)
    private func takeLongLiteral(_ bytes: Int) {
        unsafe out.copyMemory(from: literal, byteCount: bytes)
    }

    @inline(__always)
    mutating func takeText(_ text: RequestFill.Text, keyBytes: Int) {
        openText(bytes: text.count, keyBytes: keyBytes)
        let source = unsafe record + text.offset
        var offset = 0
        while offset < text.count {
            let words = unsafe source.loadUnaligned(fromByteOffset: offset, as: SIMD2<UInt64>.self)
            unsafe out.storeBytes(of: words, toByteOffset: offset, as: SIMD2<UInt64>.self)
            allText |= words
            offset &+= 16
        }
        unsafe out += text.count
    }

    mutating func takeConnection(_ name: borrowing ConnectionName, keyBytes: Int) {
        let bytes = name.bytes
        openText(bytes: bytes.count, keyBytes: keyBytes)
        for index in bytes.indices { unsafe out.storeBytes(of: bytes[index], toByteOffset: index, as: UInt8.self) }
        unsafe out += bytes.count
    }

    /// The rest of Link { trace_id, span_id, flags, attribute }; its tag is there.
    mutating func takeLink(_ fill: RequestFill, keyBytes: Int) {
        let nameBytes = fill.connection.bytes.count
        let attributeBytes = 3 &+ keyBytes &+ 5 &+ nameBytes
        put(Self.paddedLength(18 &+ 10 &+ Self.linkFlagsBytes &+ attributeBytes), 2)
        put(UInt16(Tag.linkTraceID) | 16 << 8, 2)
        put(fill.word(Word.linkTraceHigh), 8)
        put(fill.word(Word.linkTraceLow), 8)
        put(UInt16(Tag.linkSpanID) | 8 << 8, 2)
        put(fill.word(Word.linkSpan), 8)
        takeLiteral(Self.linkFlagsBytes)
        put(Tag.linkAttribute, 1)
        takeConnection(fill.connection, keyBytes: keyBytes)
    }

    /// The rest of KeyValue { key, AnyValue { string } } before the text; its tag is there.
    @inline(__always)
    private mutating func openText(bytes: Int, keyBytes: Int) {
        let valueBytes = bytes &+ 3
        unsafe out.storeBytes(of: Self.paddedLength(keyBytes &+ 2 &+ valueBytes), as: UInt16.self)
        unsafe out += 2
        takeLiteral(keyBytes)
        let tag = UInt64(OTLPProtobufEncoder.Tag.valueString)
        let word = UInt64(Self.paddedLength(valueBytes)) | tag << 16 | UInt64(Self.paddedLength(bytes)) << 24
        unsafe out.storeBytes(of: word.littleEndian, as: UInt64.self)
        unsafe out += 5
    }

    /// A varint padded to two bytes: texts end at 1,024 bytes.
    @inline(__always)
    private static func paddedLength(_ bytes: Int) -> UInt16 {
        UInt16(truncatingIfNeeded: bytes & 0x7F | 0x80 | (bytes & 0x3F80) << 1)
    }

    @inline(__always)
    mutating func closeMessage() {
        let bytes = UInt32(truncatingIfNeeded: unsafe out - length) &- 4
        unsafe length.storeBytes(of: OTLPProtobufEncoder.paddedLength(bytes).littleEndian, as: UInt32.self)
    }
}
