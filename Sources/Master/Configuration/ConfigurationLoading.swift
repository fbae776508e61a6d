import ShmRing

/// From arguments and file to what was asked for: every start and every reload begins here.
extension Configuration {
    /// Parses the arguments, reads the file that `--config` names, and completes both from the surroundings.
    /// - Parameters:
    ///   - arguments: The command line without the program's name.
    ///   - fileText: Used instead of reading the file of `--config`: what somebody has read and found good.
    /// - Throws: Help, version and the output of `--print-config` as `text`; else the first thing that is wrong.
    ///   With `--check` and `--print-config` every failure is one of usage.
    static func load(
        arguments: [String], fileText: String? = nil, surroundings: Surroundings = .current(),
        resolve: Resolver = NameLookup.addresses
    ) throws(CommandLineEnd) -> Configuration {
        let said = try CommandLineOptions.parsed(arguments)
        let isQuestion = said.check || said.printConfig
        let options: CommandLineOptions
        let configuration: Configuration
        do throws(StartFailure) {
            let text = try said.config.map { (path) throws(StartFailure) in
                if let fileText { fileText } else { try read(path) }
            }
            options = try completed(said, arguments, fileText: text)
            configuration = try Configuration(
                options, surroundings, fileText: text, resolve: said.printConfig ? someAddress : resolve)
        } catch {
            throw .failure(isQuestion ? .usage(error.message) : error)
        }
        guard !said.printConfig else { throw .text(ConfigurationPrint.json(options)) }
        return configuration
    }

    private static func read(_ path: String) throws(StartFailure) -> String {
        do throws(BadValue) {
            return try SmallFile.text(path)
        } catch {
            throw .usage("the configuration \(path) \(error)")
        }
    }

    /// What the file says, and over it what the command line says. Backends do not add up: those of the command
    /// line replace the file's.
    private static func completed(
        _ said: CommandLineOptions, _ arguments: [String], fileText: String?
    ) throws(StartFailure) -> CommandLineOptions {
        guard let path = said.config, let fileText else { return said }
        let file = try ConfigurationFile(path: path, text: fileText)
        do throws(CommandLineEnd) {
            var options = try CommandLineOptions.parsed(file.arguments + arguments)
            if options.serving.backend.isEmpty { options.serving.backend = file.backends }
            return options
        } catch {
            guard case .failure(let failure) = error else { return said }
            throw failure
        }
    }

    /// For printing, which must not depend on the resolver.
    @Sendable private static func someAddress(host: String, port: UInt16) throws(StartFailure) -> [SocketAddress] {
        [SocketAddress(ip: "127.0.0.1", port: port)!]
    }
}
