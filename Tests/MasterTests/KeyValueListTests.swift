import Testing

@testable import Master

@Suite struct KeyValueListTests {
    private func pairs(_ text: String) throws -> [String] {
        try KeyValueList.parse(text).map { "\($0.key)→\($0.value)" }
    }

    @Test func membersKeepTheirOrder() throws {
        #expect(try pairs("b=2,a=1") == ["b→2", "a→1"])
    }

    @Test func theLastOfEqualKeysCounts() throws {
        #expect(try pairs("a=1,b=2,a=3") == ["b→2", "a→3"])
    }

    @Test func whiteSpaceAroundIsNotPartOfThem() throws {
        #expect(try pairs(" a = one two ,\tb=2 , ") == ["a→one two", "b→2"])
    }

    @Test func percentEncodingIsUndone() throws {
        #expect(try pairs("k%2Cey=a%3Db%2cc,city=K%C3%B6ln") == ["k,ey→a=b,c", "city→Köln"])
    }

    @Test func onlyTheFirstEqualsSignSeparates() throws {
        #expect(try pairs("a=b=c,empty=") == ["a→b=c", "empty→"])
    }

    @Test(arguments: ["a", "=1", "a=%4", "a=%", "a=%zz", "a=%FF", "a=1,b", "%20%=1"])
    func oneBadMemberMakesAllWorthless(text: String) {
        #expect(throws: BadValue.self) { try KeyValueList.parse(text) }
    }

    @Test func nothingIsNoMember() throws {
        #expect(try pairs("").isEmpty)
    }
}
