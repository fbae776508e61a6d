import Testing

@testable import Worker

@Suite struct FieldTableTests {
    private func filled(_ section: String) -> FieldTable {
        let bytes = Array(section.utf8)
        let table = FieldTable()
        _ = FieldSection.parse(bytes.span, from: 0, into: table, fieldsMax: 128)
        return table
    }

    @Test func repeatedFieldsAreCountedAndTheFirstIsFound() {
        let table = filled("TE: a\r\nHost: h\r\nte: b\r\n\r\n")
        #expect(table.count(of: .te) == 2)
        #expect(table.first(.te)?.start == 0)
        #expect(table.first(.host)?.line == 7..<16)
        #expect(table.contains(.host))
        #expect(!table.contains(.upgrade))
        #expect(table.first(.upgrade) == nil)
        #expect(table.count(of: .upgrade) == 0)
    }

    @Test func aResetForgetsEverything() {
        let table = filled("Host: h\r\n\r\n")
        table.reset()
        #expect(table.lines.isEmpty)
        #expect(!table.contains(.host))
    }
}
