// What an HTTP/2 session knows of the proxy around it, as far as its files name it.

final class DownstreamConnection {
    var transport: Transport?
}

final class UpstreamConnection {
    struct Attempt {
        struct HTTP2 { var streamID: Int32 = 0 }
        var http2 = HTTP2()
    }
    final class Exchange {
        var attempt = Attempt()
        var downstream: DownstreamConnection?
    }
    struct Endpoint { var isSecure = false }

    var exchange: Exchange?
    let endpoint = Endpoint()
}
