import Testing

@testable import Worker

@Suite struct WorkerActivityTests {
    @Test func whatIsServedIsNamed() {
        #expect(WorkerActivity.text(0) == "nothing yet")
        #expect(
            WorkerActivity.text(EventToken(kind: .downstream, slot: 7, generation: 3).bits) == "client connection 7")
        #expect(WorkerActivity.text(EventToken(kind: .upstream, slot: 2).bits) == "backend connection 2")
        #expect(WorkerActivity.text(.max) == "nothing yet", "no such kind")
    }
}
