import ShmRing

/// How this program was started, which is how it starts again: its arguments, which every configuration is read
/// from, and where its executable is.
struct Launch {
    /// As the process got them, the program's name first.
    let arguments: [String]
    /// The program on disk; nil when it cannot be told.
    let executable: String?
    /// Random bytes that stand for this pid, whatever it runs.
    let instanceBytes: [UInt8]

    /// - Parameter instanceBytes: As a previous image drew them; nil draws them.
    init(arguments: [String], instanceBytes: [UInt8]? = nil) {
        self.arguments = arguments
        self.instanceBytes = instanceBytes ?? HostFacts.randomBytes(count: 16)
        executable = arguments.first.flatMap(ExecutablePath.resolve)
    }

    /// Reads the configuration anew.
    /// - Parameter fileText: Stands for the contents of the configuration file; nil reads it.
    func configuration(fileText: String? = nil) throws(StartFailure) -> Configuration {
        do throws(CommandLineEnd) {
            return try load(fileText: fileText)
        } catch {
            switch error {
            case .failure(let failure): throw failure
            case .text: throw .usage("the arguments of this process ask for a text")
            }
        }
    }

    /// The same, where the arguments may ask for a text instead.
    func load(fileText: String? = nil) throws(CommandLineEnd) -> Configuration {
        try Configuration.load(
            arguments: Array(arguments.dropFirst()), fileText: fileText,
            surroundings: .current(instance: instanceBytes))
    }
}
