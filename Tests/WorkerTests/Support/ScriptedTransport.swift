import ShmRing

@testable import Worker

/// A transport that does what a test says, and writes down what was asked of it.
final class ScriptedTransport: Transport {
    enum Receipt {
        case bytes([UInt8], isDrained: Bool)
        case wouldBlock(awaitsWritable: Bool)
        case end
        case failed(Errno)
    }

    /// What the next receives find; nothing: they would block.
    var receipts: [Receipt] = []
    /// How many bytes sends still take before they would block.
    var room = Int.max
    /// What sends took and `flush` has not handed on.
    private(set) var heldBack: [UInt8] = []
    /// Whether `flush` can hand on.
    var isOpen = true
    /// What went on.
    private(set) var sent: [UInt8] = []
    private(set) var hasFinished = false
    /// Whether it was closed, and how.
    private(set) var wasReset: Bool?

    var sentText: String { String(decoding: sent, as: UTF8.self) }

    override var hasBacklog: Bool { !heldBack.isEmpty }

    override func receive(into buffer: ByteBuffer) -> IOResult {
        receiveAwaitsWritable = false
        guard !receipts.isEmpty else { return .wouldBlock }
        switch receipts.removeFirst() {
        case .bytes(let bytes, let isDrained):
            buffer.append(bytes)
            self.isDrained = isDrained
            return .bytes(bytes.count)
        case .wouldBlock(let awaitsWritable):
            receiveAwaitsWritable = awaitsWritable
            return .wouldBlock
        case .end: return .endOfStream
        case .failed(let error): return .failed(error)
        }
    }

    override func send(from buffer: ByteBuffer, countMax: Int) -> IOResult {
        let count = min(room, countMax, buffer.readableBytes)
        guard count > 0 else { return .wouldBlock }
        if room != .max { room -= count }
        heldBack += buffer.bytes.prefix(count)
        buffer.consume(count)
        if isOpen { _ = flush() }
        return .bytes(count)
    }

    override func flush() -> IOResult {
        guard isOpen else { return .wouldBlock }
        sent += heldBack
        heldBack = []
        return .bytes(0)
    }

    override func finishSending() { hasFinished = true }

    override func close(isReset: Bool) { wasReset = isReset }
}
