import Testing

@testable import Exporter

@Suite struct ByteWriterTests {
    @Test func bytesStayWhileItGrows() {
        var out = ByteWriter(ByteStorage(capacityBytes: 1))
        for number in 0..<100_000 { out.append(UInt8(truncatingIfNeeded: number)) }
        let body = out.take(replacement: ByteStorage())
        #expect(body.bytes == (0..<100_000).map { UInt8(truncatingIfNeeded: $0) })
        #expect(out.count == 0)
    }

    @Test func integersAreLaidOutAsAsked() {
        var out = ByteWriter()
        out.append(bigEndian: UInt32(0x0102_0304))
        out.append(littleEndian: UInt16(0x0506))
        out.append(varint: 300)
        out.append(varint: .max)
        out.append(decimal: Int64.min)
        out.append(decimal: UInt64(0))
        out.append(hex: 0xAB)
        let text = Array("-92233720368547758080".utf8) + Array("00000000000000ab".utf8)
        let expected: [UInt8] = [1, 2, 3, 4, 6, 5, 0xAC, 2] + Array(repeating: 0xFF, count: 9) + [1] + text
        #expect(out.take(replacement: ByteStorage()).bytes == expected)
    }

    @Test func decimalsHaveAsManyDigitsAsTheyNeed() {
        var power: UInt64 = 1
        for _ in 0..<20 {
            for number in [power - 1, power, power + 1, .max] {
                var out = ByteWriter()
                out.append(decimal: number)
                #expect(out.take(replacement: ByteStorage()).bytes == Array(String(number).utf8))
            }
            power = power.multipliedReportingOverflow(by: 10).partialValue
        }
    }

    @Test func blocksBringTheirOwnLength() {
        var out = ByteWriter(ByteStorage(capacityBytes: 1))
        let long = (0..<ByteBlock.bytesMax).map { UInt8($0) }
        for _ in 0..<3 {
            out.append(ByteBlock([7, 8]))
            out.append(ByteBlock(long))
            out.append(.empty)
        }
        #expect(out.take(replacement: ByteStorage()).bytes == [7, 8] + long + [7, 8] + long + [7, 8] + long)
    }

    @Test func jsonStringsAreEscaped() {
        var out = ByteWriter()
        out.append(json: "a\"b\\c\u{1}\n\u{7F}é")
        #expect(out.take(replacement: ByteStorage()).bytes == Array("\"a\\\"b\\\\c\\u0001\\u000a\\u007fé\"".utf8))
    }
}
