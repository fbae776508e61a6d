import CShims

/// The fields of one header block on its way out, as libnghttp2 takes them. Used again for every block.
///
/// Unsafe inside, safe to use: names and values are copied into memory of its own, and libnghttp2 copies them
/// again before `withFields` returns.
@safe
final class FieldList {
    private struct Entry {
        var nameStart: Int
        var nameCount: Int
        var valueCount: Int
        var isNeverIndexed: Bool
    }

    private var text: UnsafeMutablePointer<UInt8>
    private var textCapacity = 4096
    private var textCount = 0
    private var entries: ContiguousArray<Entry> = []
    private var pairs: UnsafeMutablePointer<nghttp2_nv>
    private var pairsCapacity = 64

    init() {
        unsafe text = .allocate(capacity: textCapacity)
        unsafe pairs = .allocate(capacity: pairsCapacity)
    }

    deinit {
        unsafe text.deallocate()
        unsafe pairs.deallocate()
    }

    var count: Int { entries.count }

    func reset() {
        textCount = 0
        entries.removeAll(keepingCapacity: true)
    }

    /// Adds a field. ASCII letters of its name become lower case.
    func append(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        reserve(name.count + value.count)
        let start = textCount
        for index in name.indices { unsafe text[start + index] = lowercased(name[index]) }
        add(start, nameCount: name.count, value)
    }

    /// Adds a field whose name is in lower case.
    func append(_ name: StaticString, _ value: Span<UInt8>) {
        let count = name.utf8CodeUnitCount
        reserve(count + value.count)
        unsafe (text + textCount).update(from: name.utf8Start, count: count)
        add(textCount, nameCount: count, value)
    }

    /// Adds a field with a value of our own.
    func append(_ name: StaticString, _ value: StaticString) {
        unsafe append(name, UnsafeBufferPointer(start: value.utf8Start, count: value.utf8CodeUnitCount).span)
    }

    /// Lends the list to one call of libnghttp2.
    func withFields<Result>(_ body: (UnsafePointer<nghttp2_nv>, Int) -> Result) -> Result {
        if entries.count > pairsCapacity { growPairs() }
        for index in 0..<entries.count {
            let entry = entries[index]
            let flags = entry.isNeverIndexed ? NGHTTP2_NV_FLAG_NO_INDEX.rawValue : NGHTTP2_NV_FLAG_NONE.rawValue
            unsafe pairs[index] = nghttp2_nv(
                name: text + entry.nameStart, value: text + entry.nameStart + entry.nameCount,
                namelen: entry.nameCount, valuelen: entry.valueCount, flags: UInt8(flags))
        }
        return unsafe body(pairs, entries.count)
    }

    private func add(_ start: Int, nameCount: Int, _ value: Span<UInt8>) {
        unsafe value.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            unsafe (text + start + nameCount).update(from: from, count: source.count)
        }
        textCount = start + nameCount + value.count
        entries.append(
            Entry(
                nameStart: start, nameCount: nameCount, valueCount: value.count,
                isNeverIndexed: isCredential(start, nameCount)))
    }

    /// What must not stand in a table that others' requests share (RFC 7541 §7.1.3).
    private func isCredential(_ start: Int, _ count: Int) -> Bool {
        guard count == 13 || count == 19 else { return false }
        let name = unsafe UnsafeBufferPointer(start: text + start, count: count).span
        return name.matches("authorization") || name.matches("proxy-authorization")
    }

    private func reserve(_ bytes: Int) {
        guard textCount + bytes > textCapacity else { return }
        let capacity = max(textCapacity * 2, textCount + bytes)
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        unsafe larger.update(from: text, count: textCount)
        unsafe text.deallocate()
        unsafe text = larger
        textCapacity = capacity
    }

    private func growPairs() {
        unsafe pairs.deallocate()
        pairsCapacity = entries.count * 2
        unsafe pairs = .allocate(capacity: pairsCapacity)
    }
}
