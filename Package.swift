// swift-tools-version: 6.2
import PackageDescription

// Every Swift target: memory-unsafe constructs must be spelled `unsafe`, warnings are errors, and
// types may hand out spans of their storage (`@_lifetime`).
let settings: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Lifetimes"),
]

// A worker has one thread for its whole life, so its reference counts need no atomic instructions. All
// checks (bounds, overflow, exclusivity) stay on.
let workerSettings =
    settings + [.unsafeFlags(["-Xfrontend", "-assume-single-threaded"], .when(configuration: .release))]

let package = Package(
    name: "load_balancer",
    products: [
        .executable(name: "load_balancer", targets: ["load_balancer"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    ],
    targets: [
        .target(
            name: "CShims",
            linkerSettings: [
                .linkedLibrary("curl"), .linkedLibrary("nghttp2"), .linkedLibrary("ssl"), .linkedLibrary("crypto"),
            ]
        ),
        .target(name: "ShmRing", dependencies: ["CShims"], swiftSettings: settings),
        .target(
            name: "Worker",
            dependencies: ["CShims", "ShmRing", .product(name: "Logging", package: "swift-log")],
            swiftSettings: workerSettings
        ),
        .target(
            name: "Exporter",
            dependencies: ["CShims", "ShmRing", .product(name: "Logging", package: "swift-log")],
            swiftSettings: settings
        ),
        .target(
            name: "Master",
            dependencies: [
                "CShims", "ShmRing", "Worker", "Exporter",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings
        ),
        .executableTarget(name: "load_balancer", dependencies: ["Master"], swiftSettings: settings),
        .testTarget(name: "ShmRingTests", dependencies: ["ShmRing", "CShims"], swiftSettings: settings),
        .testTarget(name: "WorkerTests", dependencies: ["Worker", "ShmRing", "CShims"], swiftSettings: settings),
        .testTarget(name: "ExporterTests", dependencies: ["Exporter", "ShmRing", "CShims"], swiftSettings: settings),
        .testTarget(name: "MasterTests", dependencies: ["Master"], swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6],
    cLanguageStandard: .gnu11
)
