import ShmRing

/// One encoding of OTLP's ExportTraceServiceRequest: a sink that appends spans to a growing request, all of
/// them under one resource and one scope.
///
///     init ──► spans of trees … ──► finish ──► (empty again)
///                  └─ rollBack(to: mark) forgets a tree
protocol OTLPFormat: SpanSink, ~Copyable {
    /// The media type of a finished request.
    static var contentType: String { get }

    init(_ resource: ExporterConfiguration.Resource)

    /// Size of the request so far, and what `rollBack` takes.
    var byteCount: Int { get }

    mutating func rollBack(to mark: Int)

    /// A short way for the record of a usual request, if there is one.
    /// - Returns: How many spans were added; nil: none, `TreeWalk.walk` has to see the record.
    mutating func addUsual(_ record: RawSpan, _ walk: inout TreeWalk) -> Int?

    /// Completes the request and starts the next one.
    /// - Parameter replacement: Storage for the next one.
    mutating func finish(replacement: ByteStorage) -> PostBody
}

extension OTLPFormat where Self: ~Copyable {
    mutating func addUsual(_ record: RawSpan, _ walk: inout TreeWalk) -> Int? { nil }
}
