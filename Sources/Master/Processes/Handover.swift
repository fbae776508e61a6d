import FoundationEssentials
import ShmRing

/// What one image of the master tells the next across execve: every generation that lives, by the numbers of its
/// descriptors, which stay open. JSON in a memory file whose descriptor is in the environment.
///
/// The pid stays, so children stay children. A descriptor has one owner at a time: the new image takes each exactly
/// once, and closes what it cannot use.
struct Handover: Codable, Equatable {
    /// Changes when an older image could not be understood any more.
    static let version = 1
    /// Names the descriptor of the memory file.
    static let variable = "LOAD_BALANCER_HANDOVER"

    var version = Handover.version
    /// The generation that serves.
    var current: UInt32
    /// The number that was given last.
    var newest: UInt32
    /// `service.instance.id` belongs to the pid, not to the image.
    var instanceBytes: [UInt8]
    var listeners: [Listeners]
    var generations: [Generation]
    /// What session tickets are sealed with; nil from an image that knows nothing of TLS.
    var tickets: [UInt8]?

    /// The sockets of one address.
    struct Listeners: Codable, Equatable {
        var ip: String?
        var port: UInt16
        var descriptors: [Int32]
        /// Nil as false, from a program that does not know of it.
        var isInherited: Bool?
    }

    struct Generation: Codable, Equatable {
        var number: UInt32
        var isDraining: Bool
        /// The configuration file as it was read; nil without one.
        var fileText: String?
        /// Indices in `Handover.listeners`.
        var listeners: [Int]
        var board: Int32
        var segment: Segment?
        var incarnations: [UInt32]
        var children: [Child]
    }

    /// Where the spans of a generation are.
    struct Segment: Codable, Equatable {
        var memory: Int32
        var wake: Int32
        var writersAliveRead: Int32
        var writersAliveWrite: Int32
    }

    struct Child: Codable, Equatable {
        /// Nil: the exporter.
        var worker: Int?
        var pid: Int32
        var control: Int32
        var handle: Int32
        var isReady: Bool
    }

    /// Every descriptor that has to survive.
    var descriptors: [Int32] {
        listeners.flatMap(\.descriptors)
            + generations.flatMap { generation in
                [generation.board] + generation.children.flatMap { [$0.control, $0.handle] }
                    + (generation.segment.map { [$0.memory, $0.wake, $0.writersAliveRead, $0.writersAliveWrite] } ?? [])
            }
    }

    func encoded() throws(StartFailure) -> [UInt8] {
        do {
            return [UInt8](try JSONEncoder().encode(self))
        } catch {
            throw .runTime("cannot write down the state of the master: \(error)")
        }
    }

    /// - Throws: What does not make sense in it.
    init(decoding bytes: [UInt8]) throws(StartFailure) {
        do {
            self = try JSONDecoder().decode(Handover.self, from: Data(bytes))
        } catch {
            throw .runTime("cannot read the state of the previous program: \(error)")
        }
        guard version == Self.version else {
            throw .runTime("the previous program speaks version \(version) of its state, this one \(Self.version)")
        }
        guard generations.contains(where: { $0.number == current && !$0.isDraining }), isConsistent else {
            throw .runTime("the state of the previous program does not add up")
        }
    }

    init(current: UInt32, newest: UInt32, instanceBytes: [UInt8], listeners: [Listeners], generations: [Generation]) {
        self.current = current
        self.newest = newest
        self.instanceBytes = instanceBytes
        self.listeners = listeners
        self.generations = generations
    }

    private var isConsistent: Bool {
        let all = descriptors
        let references = generations.flatMap(\.listeners)
        return Set(all).count == all.count && all.allSatisfy { $0 > 2 }
            && references.allSatisfy { listeners.indices.contains($0) }
            && generations.allSatisfy { !$0.listeners.isEmpty && $0.number <= newest }
            && Set(generations.map(\.number)).count == generations.count && instanceBytes.count == 16
    }
}
