import Testing

@testable import Worker

@Suite struct RoundRobinTests {
    @Test func everyBackendHasItsTurn() {
        var strategy = RoundRobin()
        let chosen = (0..<7).map { _ in strategy.choose(among: 3) { _ in true } }
        #expect(chosen == [0, 1, 2, 0, 1, 2, 0])
    }

    @Test func whoIsNoCandidateIsPassedOver() {
        var strategy = RoundRobin()
        let chosen = (0..<4).map { _ in strategy.choose(among: 4) { $0 == 1 || $0 == 3 } }
        #expect(chosen == [1, 3, 1, 3])
    }

    @Test func aBackendThatComesBackKeepsItsPlaceInTheOrder() {
        var strategy = RoundRobin()
        #expect(strategy.choose(among: 3) { $0 != 1 } == 0)
        #expect(strategy.choose(among: 3) { $0 != 1 } == 2)
        #expect((0..<3).map { _ in strategy.choose(among: 3) { _ in true } } == [0, 1, 2])
    }

    @Test(arguments: [0, 1, 5])
    func withoutACandidateNobodyIsChosen(count: Int) {
        var strategy = RoundRobin()
        #expect(strategy.choose(among: count) { _ in false } == nil)
    }

    @Test func aSearchInVainTakesNobodysTurn() {
        var strategy = RoundRobin()
        #expect(strategy.choose(among: 3) { _ in true } == 0)
        #expect(strategy.choose(among: 3) { _ in false } == nil)
        #expect(strategy.choose(among: 3) { _ in true } == 1)
    }

    @Test func eachCandidateIsAskedAboutOnceAtMost() {
        var strategy = RoundRobin()
        _ = strategy.choose(among: 4) { _ in true }
        var asked: [Int] = []
        _ = strategy.choose(among: 4) { index in
            asked.append(index)
            return false
        }
        #expect(asked == [1, 2, 3, 0])
    }

    @Test func itsNameIsTheOneOfTheTraces() {
        #expect("\(RoundRobin().name)" == "round_robin")
    }
}
