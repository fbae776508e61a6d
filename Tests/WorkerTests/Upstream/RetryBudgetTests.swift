import Testing

@testable import Worker

@Suite struct RetryBudgetTests {
    /// How many retries are left.
    private static func left(_ budget: RetryBudget) -> Int {
        var budget = budget
        var count = 0
        while budget.spend() { count += 1 }
        return count
    }

    @Test func reserveIsAHundredRetries() {
        #expect(Self.left(RetryBudget()) == 100)
    }

    @Test(arguments: [(4, 0), (5, 1), (9, 1), (10, 2), (10_000, 100)])
    func fiveRequestsEarnARetry(_ requests: Int, _ retries: Int) {
        var budget = RetryBudget()
        while budget.spend() {}
        for _ in 0..<requests { budget.requestBegan() }
        #expect(Self.left(budget) == retries)
    }
}
