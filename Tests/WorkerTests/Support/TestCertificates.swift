import Glibc

@testable import Worker

/// Certificates made when a test first asks, by the openssl command, in a folder of their own.
/// Unsafe: calls C's mkdtemp and system.
struct TestCertificates {
    static let shared = TestCertificates()

    let folder: String
    /// Who signed all but `stranger`.
    var caPath: String { "\(folder)/ca.pem" }

    /// A certificate of that name; see `init` for which there are.
    func files(_ name: String) -> CertificateFiles {
        CertificateFiles(certificatePath: "\(folder)/\(name).pem", keyPath: "\(folder)/\(name).key")
    }

    func path(_ name: String) -> String { "\(folder)/\(name)" }

    private init() {
        var template = Array("/tmp/lb-certificates-XXXXXX".utf8CString)
        guard let made = unsafe mkdtemp(&template) else { fatalError("mkdtemp fails") }
        folder = unsafe String(cString: made)
        make("ca", signedBy: nil, subject: "ca", names: [])
        make("a", signedBy: "ca", subject: "a.test", names: ["DNS:a.test", "IP:127.0.0.1"])
        make("a-rsa", signedBy: "ca", subject: "a.test", names: ["DNS:a.test", "IP:127.0.0.1"], key: "rsa:2048")
        make("wild", signedBy: "ca", subject: "wild", names: ["DNS:*.b.test", "DNS:b.test"])
        make("exact", signedBy: "ca", subject: "exact", names: ["DNS:x.b.test"])
        make("common", signedBy: "ca", subject: "Common.test", names: [])
        make("expired", signedBy: "ca", subject: "a.test", names: ["DNS:a.test"], days: -1)
        make("stranger", signedBy: nil, subject: "a.test", names: ["DNS:a.test"])
        run("openssl rsa -in \(folder)/a-rsa.key -aes128 -passout pass:secret -out \(folder)/locked.key")
    }

    private func make(
        _ name: String, signedBy signer: String?, subject: String, names: [String],
        key: String = "ec -pkeyopt ec_paramgen_curve:P-256", days: Int = 2
    ) {
        let base = "\(folder)/\(name)"
        run("openssl req -newkey \(key) -nodes -keyout \(base).key -out \(base).csr -subj /CN=\(subject)")
        let extensions = names.isEmpty ? "" : "subjectAltName=\(names.joined(separator: ","))\n"
        let isCA = signer == nil ? "basicConstraints=critical,CA:TRUE\n" : "basicConstraints=critical,CA:FALSE\n"
        run("printf '\(extensions)\(isCA)' > \(base).ext".replacing("\n", with: "\\n"))
        let signature =
            signer.map { "-CA \(folder)/\($0).pem -CAkey \(folder)/\($0).key" } ?? "-signkey \(base).key"
        run("openssl x509 -req -in \(base).csr \(signature) -days \(days) -extfile \(base).ext -out \(base).pem")
    }

    private func run(_ command: String) {
        let status = unsafe system("{ \(command); } >/dev/null 2>\(folder)/errors </dev/null")
        precondition(status == 0, "\(command) fails, see \(folder)/errors")
    }
}
