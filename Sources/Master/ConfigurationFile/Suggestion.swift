/// What somebody may have meant who wrote a word that does not exist.
enum Suggestion {
    /// The candidate that is most like `word`, if one is like it at all: at most a third of its letters differ.
    static func nearest(to word: String, among candidates: [String]) -> String? {
        guard word.utf8.count <= 64 else { return nil }
        let tolerance = max(1, word.utf8.count / 3)
        let distances = candidates.map { (candidate: $0, distance: distance(word, $0)) }
        let best = distances.min { $0.distance < $1.distance }
        return best.flatMap { $0.distance <= tolerance ? $0.candidate : nil }
    }

    /// How many letters must be put in, left out or replaced (Levenshtein), one row of the table at a time.
    static func distance(_ first: String, _ second: String) -> Int {
        let first = Array(first.utf8), second = Array(second.utf8)
        var row = Array(0...second.count)
        for (line, letter) in first.enumerated() {
            var diagonal = row[0]
            row[0] = line + 1
            for (column, other) in second.enumerated() {
                let replaced = diagonal + (letter == other ? 0 : 1)
                diagonal = row[column + 1]
                row[column + 1] = min(replaced, row[column] + 1, diagonal + 1)
            }
        }
        return row[second.count]
    }
}
