/// What the master owes to its surroundings, as far as it was asked for.
struct ServicePolicy: Equatable, Sendable {
    /// The file that names the master while it serves.
    var pidFile: String?
    /// The files that are watched, as they are in force; empty: nobody watches.
    var watched: [WatchedFile] = []
}
