/// The timeouts of many connections, one running deadline each.
///
/// Every kind of timeout has one duration, so a list in order of arming is a list in order of expiry:
/// arming, re-arming and disarming are O(1), and expiry looks only at the heads.
///
///     kind 0:  head ─► slot 7 ─► slot 2 ─► slot 9 ─► tail        (same duration, armed in this order)
///     kind 1:  head ─► slot 4 ─► tail
struct DeadlineLists<Kind: RawRepresentable & CaseIterable & Sendable>: Sendable where Kind.RawValue == UInt8 {
    private struct Node: Sendable {
        var previous: Int32 = -1
        var next: Int32 = -1
        var kind: UInt8 = 0xFF
        var deadlineNs: UInt64 = 0
    }

    private var nodes: ContiguousArray<Node> = []
    private var heads: ContiguousArray<Int32>
    private var tails: ContiguousArray<Int32>
    private let durationsNs: ContiguousArray<UInt64>

    /// - Parameter durationNs: The duration of each kind in nanoseconds.
    init(durationNs: (Kind) -> UInt64) {
        let count = Kind.allCases.count
        heads = ContiguousArray(repeating: -1, count: count)
        tails = ContiguousArray(repeating: -1, count: count)
        durationsNs = ContiguousArray(Kind.allCases.map(durationNs))
    }

    /// Starts the deadline of `slot`, in place of the one that ran.
    mutating func arm(_ slot: Int, _ kind: Kind, nowNs: UInt64) {
        while nodes.count <= slot { nodes.append(Node()) }
        unlink(slot)
        let list = Int(kind.rawValue)
        let last = tails[list]
        nodes[slot] = Node(
            previous: last, next: -1, kind: kind.rawValue, deadlineNs: nowNs &+ durationsNs[list])
        if last >= 0 { nodes[Int(last)].next = Int32(slot) } else { heads[list] = Int32(slot) }
        tails[list] = Int32(slot)
    }

    /// Stops the deadline of `slot`, if one runs.
    mutating func disarm(_ slot: Int) {
        guard slot < nodes.count else { return }
        unlink(slot)
    }

    /// The kind of deadline that runs for `slot`.
    func armed(_ slot: Int) -> Kind? {
        slot < nodes.count ? Kind(rawValue: nodes[slot].kind) : nil
    }

    /// When the first deadline is due, nil when none runs.
    var nextNs: UInt64? {
        var first: UInt64?
        for head in heads where head >= 0 {
            first = min(first ?? .max, nodes[Int(head)].deadlineNs)
        }
        return first
    }

    /// Takes one deadline that is due out of its list.
    mutating func popExpired(nowNs: UInt64) -> (slot: Int, kind: Kind)? {
        for head in heads where head >= 0 && nodes[Int(head)].deadlineNs <= nowNs {
            guard let kind = Kind(rawValue: nodes[Int(head)].kind) else { continue }
            unlink(Int(head))
            return (Int(head), kind)
        }
        return nil
    }

    private mutating func unlink(_ slot: Int) {
        let node = nodes[slot]
        guard node.kind != 0xFF else { return }
        let list = Int(node.kind)
        if node.previous >= 0 { nodes[Int(node.previous)].next = node.next } else { heads[list] = node.next }
        if node.next >= 0 { nodes[Int(node.next)].previous = node.previous } else { tails[list] = node.previous }
        nodes[slot].kind = 0xFF
        nodes[slot].previous = -1
        nodes[slot].next = -1
    }
}
