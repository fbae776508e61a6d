import Worker

/// What the TLS flags come to: files are read and checked here, before anything is forked.
struct TLSPlan {
    /// Where HTTPS is served, nil when it is not.
    let listen: ListenAddress?
    let server: TLSServer?
    let client: TLSClient?
    let warnings: [String]

    /// One for the life of the process, so that sessions can be resumed after a reload; the next image adopts it.
    static let tickets = TicketKeys()

    init(_ options: CommandLineOptions) throws(StartFailure) {
        listen = options.tls.tlsPort.map { ListenAddress(ip: options.serving.address, port: UInt16($0)) }
        server = try Self.server(options.tls)
        client = try Self.client(options)
        warnings = (server?.warnings ?? []) + (client?.warnings ?? [])
        if let port = options.tls.tlsPort, port == options.serving.port, port > 0 {
            throw .usage("--port and --tls-port are both \(port); give two, or leave --port out to serve only HTTPS")
        }
    }

    /// Every file that is read for TLS.
    static func paths(_ options: CommandLineOptions) -> [String] {
        let (server, client) = (options.tls, options.upstreamTLS)
        let single = [server.clientCa, client.upstreamCa, client.upstreamCert, client.upstreamKey]
        return server.tlsCert + server.tlsKey + server.tlsOcsp + single.compactMap(\.self)
    }

    private static func server(_ options: TLSOptions) throws(StartFailure) -> TLSServer? {
        guard options.tlsPort != nil else {
            if !options.tlsCert.isEmpty || !options.tlsKey.isEmpty || options.clientCa != nil {
                throw .usage("there are certificates but no port for HTTPS; add --tls-port")
            }
            return nil
        }
        guard !options.tlsCert.isEmpty else {
            throw .usage("--tls-port needs a certificate; add --tls-cert FILE and --tls-key FILE")
        }
        guard options.tlsCert.count == options.tlsKey.count else {
            throw .usage(
                "there are \(options.tlsCert.count) --tls-cert and \(options.tlsKey.count) --tls-key; give one key for each "
                    + "certificate, in the same order")
        }
        do throws(TLSProblem) {
            return try TLSServer(settings(options), tickets: tickets)
        } catch {
            throw .usage(error.description)
        }
    }

    private static func settings(_ options: TLSOptions) -> TLSServerSettings {
        let pairs = zip(options.tlsCert, options.tlsKey)
        var settings = TLSServerSettings(
            certificates: pairs.map { CertificateFiles(certificatePath: $0, keyPath: $1) })
        settings.minVersion = options.tlsMinVersion
        settings.ciphers = options.tlsCiphers
        settings.clientCAPath = options.clientCa
        settings.requiresClientCertificate = options.clientVerify == .required
        settings.staplePaths = options.tlsOcsp
        return settings
    }

    /// Made wherever a flag is about it, so that what is wrong is told; used where a backend wants it.
    private static func client(_ options: CommandLineOptions) throws(StartFailure) -> TLSClient? {
        let tls = options.upstreamTLS
        let isWanted = options.serving.backend.contains { $0.isSecure }
        guard isWanted || tls.upstreamCa != nil || tls.upstreamCert != nil || tls.upstreamKey != nil else { return nil }
        var settings = TLSClientSettings()
        settings.caPath = tls.upstreamCa
        settings.isVerifying = !tls.insecure
        settings.protocols = tls.upstreamAlpn
        settings.certificate = try certificate(tls)
        do throws(TLSProblem) {
            return try TLSClient(settings)
        } catch {
            throw .usage(error.description)
        }
    }

    private static func certificate(_ options: UpstreamTLSOptions) throws(StartFailure) -> CertificateFiles? {
        switch (options.upstreamCert, options.upstreamKey) {
        case (nil, nil): return nil
        case (let certificate?, let key?): return CertificateFiles(certificatePath: certificate, keyPath: key)
        case (nil, _?): throw .usage("--upstream-key needs its certificate; add --upstream-cert FILE")
        case (_?, nil): throw .usage("--upstream-cert needs its key; add --upstream-key FILE")
        }
    }
}
