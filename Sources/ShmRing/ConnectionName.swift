/// `connection.id` as text: "w2-1041", made without an allocation.
public struct ConnectionName {
    public static let bytesMax = 40
    private var storage = InlineArray<40, UInt8>(repeating: 0)
    private var start = Self.bytesMax

    public init(worker: UInt32, number: UInt64) {
        prepend(decimal: number)
        prepend(UInt8(ascii: "-"))
        prepend(decimal: UInt64(worker))
        prepend(UInt8(ascii: "w"))
    }

    public var bytes: Span<UInt8> {
        @_lifetime(borrow self)
        borrowing get { storage.span.extracting(start..<Self.bytesMax) }
    }

    private mutating func prepend(decimal number: UInt64) {
        var rest = number
        repeat {
            prepend(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10))
            rest /= 10
        } while rest > 0
    }

    private mutating func prepend(_ byte: UInt8) {
        start -= 1
        storage[start] = byte
    }
}
