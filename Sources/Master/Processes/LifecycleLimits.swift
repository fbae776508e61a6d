extension LifecyclePolicy {
    /// What concerns the supervisor.
    var limits: SupervisorState.Limits {
        .init(readyTimeoutNs: readyTimeoutNs, drainingMax: drainingGenerationsMax)
    }
}
