/// What the master owes to its surroundings, as far as it was asked for.
struct ServicePolicy: Equatable, Sendable {
    /// The file that names the master while it serves.
    var pidFile: String?
    /// The configuration file that is watched, and the text that is in force; nil: nobody watches.
    var watched: Watched?

    struct Watched: Equatable, Sendable {
        var path: String
        var text: String
    }
}
