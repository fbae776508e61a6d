/// What `--version` prints, and the version of the resource and the scope of every span.
let productVersion = "0.1.0"

/// The product's name in messages, process titles and traces.
let productName = "load_balancer"
