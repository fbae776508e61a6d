"""The benchmark suite: CPU time, latency and memory of the load balancer beside other proxies. See README.md."""
