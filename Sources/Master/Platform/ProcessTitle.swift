import CShims

/// What ps and top show for this process.
/// Unsafe: passes C strings.
enum ProcessTitle {
    /// - Parameters:
    ///   - title: Comes behind the product's name in the command line column.
    ///   - short: The name of the process alone, at most 15 bytes.
    static func set(_ title: String, short: String) {
        unsafe lb_set_process_title("\(productName): \(title)", short)
    }
}
