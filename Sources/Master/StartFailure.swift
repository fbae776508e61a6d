/// Why the balancer does not start, as one line for a person and the exit status that goes with it.
///
/// Thrown before anything is forked, and only caught in `MasterProcess`.
struct StartFailure: Error, Equatable {
    /// Exit statuses of a start that failed.
    enum Kind: Int32 {
        /// The system refuses what was asked for: a port in use, a name that cannot be resolved.
        case runTime = 1
        /// The command line cannot be used as it is.
        case usage = 2
    }

    let kind: Kind
    /// What was tried, on what, and what to do about it.
    let message: String
    /// Somebody listens where this was to.
    var isAddressInUse = false

    static func usage(_ message: String) -> StartFailure {
        StartFailure(kind: .usage, message: message)
    }

    static func runTime(_ message: String) -> StartFailure {
        StartFailure(kind: .runTime, message: message)
    }
}

/// A flag's value that cannot be used. The command line puts flag and value in front of it.
struct BadValue: Error, Equatable, CustomStringConvertible {
    /// What is wrong and what to write instead.
    let description: String

    init(_ description: String) {
        self.description = description
    }
}
