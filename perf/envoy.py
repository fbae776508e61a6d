"""Envoy's configuration, made as it would be for speed: one thread a worker, no limits, no access log, no admin port.

Traced, it writes its default of one span for each request and sends them in batches as large as the load balancer's
posts tend to be; its own default is a post for every five spans.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perf.machine import program
from perf.processes import Front

if TYPE_CHECKING:
    from perf.peers import Setting

SPANS_IN_A_POST = 512
UNLIMITED = 1_000_000


def envoy_command(setting: Setting) -> list[str]:
    path = setting.directory / "envoy.json"
    path.write_text(json.dumps(configuration(setting)))
    return [program("envoy"), "-c", str(path), "--concurrency", str(setting.workers), "--log-level", "error",
            "--disable-hot-restart"]


def configuration(setting: Setting) -> dict[str, Any]:
    clusters = [backend_cluster(setting)]
    if setting.collector_port is not None:
        clusters.append(cluster("collector", setting.collector_port))
    return {
        "static_resources": {"listeners": [listener(setting)], "clusters": clusters},
        "layered_runtime": {"layers": [{
            "name": "static", "static_layer": {"tracing.opentelemetry.min_flush_spans": SPANS_IN_A_POST}}]},
    }


def typed(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(setting: Setting) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [{
        "name": "http", "typed_config": typed(
            "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **connections(setting))}]}
    if setting.front is Front.HTTPS:
        chain["transport_socket"] = {"name": "tls", "typed_config": typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=front_tls(setting))}
    return {"name": "front", "address": address(setting.port), "tcp_backlog_size": 4096, "filter_chains": [chain]}


def front_tls(setting: Setting) -> dict[str, Any]:
    file = {"filename": str(setting.certificate)}
    certificate = {"certificate_chain": file, "private_key": file}
    return {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate]}


def connections(setting: Setting) -> dict[str, Any]:
    """What is done with the connections of clients; the codec is found by ALPN or by the first bytes."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    fields = {
        "stat_prefix": "front", "codec_type": "AUTO", "use_remote_address": True, "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": typed("extensions.filters.http.router.v3.Router")}],
    }
    if setting.collector_port is not None:
        fields |= {"generate_request_id": True, "tracing": tracing(setting.collector_port)}
    return fields


def tracing(port: int) -> dict[str, Any]:
    uri = {"uri": f"http://127.0.0.1:{port}/v1/traces", "cluster": "collector", "timeout": "10s"}
    return {"provider": {"name": "otel", "typed_config": typed(
        "config.trace.v3.OpenTelemetryConfig", service_name="envoy", http_service={"http_uri": uri})}}


def backend_cluster(setting: Setting) -> dict[str, Any]:
    made = cluster("backend", setting.backend_port)
    if setting.is_backend_h2:
        made["transport_socket"] = {"name": "tls", "typed_config": typed(
            "extensions.transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context={
                "alpn_protocols": ["h2"], "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}})}
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {}})}
    return made


def cluster(name: str, port: int) -> dict[str, Any]:
    limits = {f"max_{what}": UNLIMITED for what in ("connections", "pending_requests", "requests")}
    return {
        "name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(port)}}]}]},
    }
