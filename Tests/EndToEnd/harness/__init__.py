"""Real peers for the end-to-end tests: clients, backends, a collector, and the balancer itself."""
