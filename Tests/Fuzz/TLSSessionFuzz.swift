// Two TLS sessions at the ends of a wire that the input makes: how many bytes pass at a time, which are damaged, who
// says what and when. Without a client it is the wire alone that speaks. Checked: what is received is the beginning of
// what was sent; a session that has failed stays so; what waits for the kernel is bounded, and the end is the end.
//
// The sockets are real and small, so that records wait half written. FUZZ_CERTIFICATE names a certificate and its key,
// without their endings. Unsafe: socket calls.

import CShims
import Glibc
import ShmRing

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    let bytes = unsafe FuzzInput(start, count).bytes
    guard let mode = bytes.first else { return 0 }
    let wire = Wire(hasClient: mode & 1 == 1)
    wire.run(Array(bytes.dropFirst()))
    wire.close()
    return 0
}

private struct Ends {
    let tls: Int32
    let wire: Int32

    init() {
        var pair: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        guard unsafe socketpair(AF_UNIX, type, 0, &pair) == 0 else { fatalError("socketpair: \(Errno.last)") }
        var room: Int32 = 2048
        for end in pair { unsafe setsockopt(end, SOL_SOCKET, SO_SNDBUF, &room, socklen_t(MemoryLayout<Int32>.size)) }
        tls = pair[0]
        wire = pair[1]
    }

    func close() {
        Glibc.close(tls)
        Glibc.close(wire)
    }
}

private func certificate() -> CertificateFiles {
    guard let base = unsafe getenv("FUZZ_CERTIFICATE") else { fatalError("FUZZ_CERTIFICATE is not set") }
    let path = unsafe String(cString: base)
    return CertificateFiles(certificatePath: "\(path).pem", keyPath: "\(path).key")
}

private let server: TLSServer = {
    do {
        return try TLSServer(TLSServerSettings(certificates: [certificate()]), tickets: TicketKeys())
    } catch { fatalError("\(error)") }
}()

private let anyClient: TLSClient = {
    var settings = TLSClientSettings()
    settings.isVerifying = false
    do { return try TLSClient(settings) } catch { fatalError("\(error)") }
}()

/// One side with what it has said and heard.
private final class Side {
    let session: TLSSession
    var isOpen = false
    var hasFailed = false
    var isFinished = false
    var sent: [UInt8] = []
    var received: [UInt8] = []

    init(_ session: TLSSession) { self.session = session }

    func shakeHands() {
        guard !isOpen, !hasFailed else { return }
        switch session.handshake() {
        case .done: isOpen = true
        case .failed: hasFailed = true
        case .wouldBlock: break
        }
    }

    func receive(room: Int) {
        guard isOpen else { return }
        session.socketBecameReadable()
        let buffer = ByteBuffer(capacity: room)
        switch session.receive(into: buffer) {
        case .bytes(let count):
            require(count == buffer.readableBytes && count > 0, "what is received is in the buffer")
            require(!hasFailed, "a session that has failed receives nothing")
            let bytes = buffer.readable
            received += bytes.indices.map { bytes[$0] }
        case .failed: hasFailed = true
        case .wouldBlock, .endOfStream: break
        }
    }

    func send(_ count: Int) {
        guard isOpen, !isFinished, count > 0 else { return }
        let buffer = ByteBuffer(capacity: count)
        for index in 0..<count { buffer.append(UInt8(truncatingIfNeeded: sent.count + index)) }
        let before = buffer.readableBytes
        let result = session.send(from: buffer, countMax: count)
        let taken = before - buffer.readableBytes
        if case .bytes(let said) = result { require(said == taken && said > 0, "what was taken has left the buffer") }
        if case .wouldBlock = result { require(taken == 0, "nothing is taken where nothing could be") }
        if case .failed = result { hasFailed = true }
        for _ in 0..<taken { sent.append(UInt8(truncatingIfNeeded: sent.count)) }
    }
}

private final class Wire {
    private let near = Ends()
    private let far = Ends()
    private let serverSide: Side
    private let clientSide: Side?
    private var isDamaged = false

    init(hasClient: Bool) {
        serverSide = Side(server.session(descriptor: near.tls))
        clientSide =
            hasClient
            ? Side(anyClient.session(descriptor: far.tls, name: "a.test", isAddress: false, memory: SessionMemory()))
            : nil
    }

    func run(_ bytes: [UInt8]) {
        var index = 0
        guard let clientSide else {
            while index < bytes.count {
                let count = min(Int(bytes[index]) + 1, bytes.count - index)
                write(Array(bytes[index..<(index + count)]), to: near.wire)
                index += count
                serverSide.shakeHands()
                serverSide.receive(room: 4096)
                drain(near.wire)
            }
            return
        }
        // Most inputs get past the handshake.
        if let first = bytes.first, first & 3 != 0 {
            for _ in 0..<50 where !serverSide.isOpen || !clientSide.isOpen {
                pass(16384)
                shakeHands()
            }
        }
        while index + 1 < bytes.count {
            step(bytes[index], bytes[index + 1], clientSide)
            index += 2
        }
        check(clientSide)
    }

    private func shakeHands() {
        serverSide.shakeHands()
        clientSide?.shakeHands()
    }

    private func step(_ kind: UInt8, _ argument: UInt8, _ client: Side) {
        let side = kind & 0x80 == 0 ? serverSide : client
        let count = Int(argument) * Int(argument) + 1
        switch kind % 8 {
        case 0, 1: pass(count)
        case 2: side.send(count)
        case 3: side.receive(room: count)
        case 4: _ = side.session.flush()
        case 5: shakeHands()
        case 6 where argument < 8:
            isDamaged = true
            write([argument, 3, 3, 0, argument], to: kind & 0x80 == 0 ? near.wire : far.wire)
        case 7 where argument < 16 && side.isOpen:
            side.session.finishSending()
            side.isFinished = true
        default: pass(65536)
        }
    }

    /// Carries up to `count` bytes each way.
    private func pass(_ count: Int) {
        carry(near.wire, far.wire, count)
        carry(far.wire, near.wire, count)
    }

    private func carry(_ source: Int32, _ sink: Int32, _ count: Int) {
        var piece = [UInt8](repeating: 0, count: min(count, 65536))
        let peeked = unsafe recv(source, &piece, piece.count, Int32(MSG_PEEK))
        guard peeked > 0 else { return }
        let taken = unsafe Glibc.send(sink, piece, peeked, Int32(MSG_NOSIGNAL))
        guard taken > 0 else { return }
        _ = unsafe recv(source, &piece, taken, 0)
    }

    private func write(_ bytes: [UInt8], to descriptor: Int32) {
        _ = unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    private func drain(_ descriptor: Int32) {
        var piece = [UInt8](repeating: 0, count: 65536)
        while unsafe recv(descriptor, &piece, piece.count, 0) > 0 {}
    }

    private func check(_ client: Side) {
        require(client.sent.starts(with: serverSide.received), "the server hears what the client said")
        require(serverSide.sent.starts(with: client.received), "the client hears what the server said")
        guard !isDamaged, serverSide.isOpen, client.isOpen else { return }
        for _ in 0..<2000
        where serverSide.received.count < client.sent.count || client.received.count < serverSide.sent.count {
            pass(65536)
            for side in [serverSide, client] {
                _ = side.session.flush()
                side.receive(room: 65536)
            }
        }
        require(serverSide.received == client.sent, "everything arrives at the server")
        require(client.received == serverSide.sent, "everything arrives at the client")
    }

    func close() {
        for side in [serverSide, clientSide] where side != nil { side?.session.close(isReset: false) }
        near.close()
        far.close()
    }
}
