import CShims

/// The fields of one header block on its way out, as libnghttp2 takes them. Used again for every block.
///
/// Unsafe inside, safe to use: names and values are copied into memory of its own, and libnghttp2 copies them
/// again before `withFields` returns.
@safe
final class FieldList {
    private var text: UnsafeMutablePointer<UInt8>
    private var textCapacity = 4096
    private var textCount = 0
    /// Point into `text`.
    private var pairs: UnsafeMutablePointer<nghttp2_nv>
    private var pairsCapacity = 64
    private(set) var count = 0
    /// Of a field that is put together behind `textCount`.
    private var openNameCount = 0
    private var openCount = 0
    /// Words are written where a name ends, so room for one more is kept.
    private static let wordBytes = 8

    init() {
        unsafe text = .allocate(capacity: textCapacity)
        unsafe pairs = .allocate(capacity: pairsCapacity)
    }

    deinit {
        unsafe text.deallocate()
        unsafe pairs.deallocate()
    }

    func reset() {
        textCount = 0
        count = 0
        openCount = 0
    }

    /// Adds a field. ASCII letters of its name become lower case.
    @inline(__always)
    func append(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        reserve(name.count + value.count)
        unsafe copy(name, to: text + textCount)
        var index = 0
        while index < name.count {
            let place = unsafe UnsafeMutableRawPointer(text + textCount + index)
            let word = unsafe place.loadUnaligned(as: UInt64.self)
            unsafe place.storeBytes(of: lowercased(word: word), as: UInt64.self)
            index += Self.wordBytes
        }
        add(nameCount: name.count, value)
    }

    /// Adds a field whose name is in lower case.
    func append(_ name: StaticString, _ value: Span<UInt8>) {
        let nameCount = name.utf8CodeUnitCount
        reserve(nameCount + value.count)
        unsafe (text + textCount).update(from: name.utf8Start, count: nameCount)
        add(nameCount: nameCount, value)
    }

    /// Adds a field with a value of our own.
    func append(_ name: StaticString, _ value: StaticString) {
        unsafe append(name, UnsafeBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount).span)
    }

    /// Adds a field whose value comes in pieces: `begin`, `extend` for each, `end`.
    func begin(_ name: StaticString) {
        openNameCount = name.utf8CodeUnitCount
        openCount = openNameCount
        reserve(openCount)
        unsafe (text + textCount).update(from: name.utf8Start, count: openCount)
    }

    func extend(_ piece: Span<UInt8>) {
        reserve(openCount + piece.count)
        unsafe copy(piece, to: text + textCount + openCount)
        openCount += piece.count
    }

    func extend(_ piece: StaticString) {
        unsafe extend(UnsafeBufferPointer(start: piece.utf8Start, count: piece.utf8CodeUnitCount).span)
    }

    func end() {
        addPair(nameCount: openNameCount, valueCount: openCount - openNameCount)
        openCount = 0
    }

    /// Lends the list to one call of libnghttp2.
    func withFields<Result>(_ body: (UnsafePointer<nghttp2_nv>, Int) -> Result) -> Result {
        unsafe body(pairs, count)
    }

    /// The value goes behind the name, which stands at the end of the text.
    @inline(__always)
    private func add(nameCount: Int, _ value: Span<UInt8>) {
        unsafe copy(value, to: text + textCount + nameCount)
        addPair(nameCount: nameCount, valueCount: value.count)
    }

    @inline(__always)
    private func addPair(nameCount: Int, valueCount: Int) {
        let name = unsafe text + textCount
        let flags = isNeverIndexed(nameCount) ? NGHTTP2_NV_FLAG_NO_INDEX.rawValue : NGHTTP2_NV_FLAG_NONE.rawValue
        unsafe (pairs + count).initialize(
            to: nghttp2_nv(
                name: name, value: name + nameCount, namelen: nameCount, valuelen: valueCount, flags: UInt8(flags)))
        textCount += nameCount + valueCount
        count += 1
    }

    @inline(__always)
    private func copy(_ bytes: Span<UInt8>, to place: UnsafeMutablePointer<UInt8>) {
        unsafe bytes.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            unsafe place.update(from: from, count: source.count)
        }
    }

    /// What must not stand in a table that others' requests share (RFC 7541 §7.1.3), and what is new in each request.
    private func isNeverIndexed(_ nameCount: Int) -> Bool {
        guard nameCount == 11 || nameCount == 13 || nameCount == 19 else { return false }
        let name = unsafe UnsafeBufferPointer(start: text + textCount, count: nameCount).span
        return name.matches("traceparent") || name.matches("authorization") || name.matches("proxy-authorization")
    }

    @inline(__always)
    private func reserve(_ bytes: Int) {
        if textCount + bytes + Self.wordBytes > textCapacity { growText(bytes) }
        if count == pairsCapacity { growPairs() }
    }

    @inline(never)
    private func growText(_ bytes: Int) {
        let capacity = max(textCapacity * 2, textCount + bytes + Self.wordBytes)
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        unsafe larger.update(from: text, count: textCount + openCount)
        for index in 0..<count {
            unsafe pairs[index].name = larger + (pairs[index].name - text)
            unsafe pairs[index].value = larger + (pairs[index].value - text)
        }
        unsafe text.deallocate()
        unsafe text = larger
        textCapacity = capacity
    }

    @inline(never)
    private func growPairs() {
        let larger = UnsafeMutablePointer<nghttp2_nv>.allocate(capacity: pairsCapacity * 2)
        unsafe larger.update(from: pairs, count: count)
        unsafe pairs.deallocate()
        unsafe pairs = larger
        pairsCapacity *= 2
    }
}
