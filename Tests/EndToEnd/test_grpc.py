"""gRPC with the grpcio library on both sides, over HTTP/2 in cleartext and over TLS."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from harness.balancer import Balancer
from harness.certificates import Authority, Certificate
from harness.collector import Collector, for_target
from harness.stage import Stage
from harness.tls import Front
from harness.waiting import PATIENCE_S


class Service(grpc.GenericRpcHandler):
    """Methods on plain bytes, without generated code."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            "/test/Unary": grpc.unary_unary_rpc_method_handler(lambda request, _: request[::-1]),
            "/test/Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "/test/Slow": grpc.unary_unary_rpc_method_handler(self._wait_for_cancel),
            "/test/Slower": grpc.unary_unary_rpc_method_handler(self._wait_for_cancel),
            "/test/Serve": grpc.unary_stream_rpc_method_handler(lambda request, _: self._count(request)),
            "/test/Collect": grpc.stream_unary_rpc_method_handler(lambda requests, _: b"".join(requests)),
            "/test/Echo": grpc.stream_stream_rpc_method_handler(lambda requests, _: (r[::-1] for r in requests)),
        }.get(details.method)

    @staticmethod
    def _count(request: bytes) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    @staticmethod
    def _fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")

    def _wait_for_cancel(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(PATIENCE_S)
        return b""


class Setting:
    """Client, balancer and server, which speak TLS everywhere or nowhere."""

    def __init__(self, stage: Stage, pair: tuple[Authority, Certificate] | None) -> None:
        self.service = Service()
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=(self.service,))
        self.collector: Collector = stage.collector()
        self.channel, self.balancer = self._with_tls(stage, *pair) if pair else self._in_cleartext(stage)

    def _in_cleartext(self, stage: Stage) -> tuple[grpc.Channel, Balancer]:
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        balancer = stage.balancer([f"h2c://127.0.0.1:{port}"], collector=self.collector)
        return grpc.insecure_channel(f"127.0.0.1:{balancer.port}"), balancer

    def _with_tls(self, stage: Stage, authority: Authority, certificate: Certificate) -> tuple[grpc.Channel, Balancer]:
        secret = (certificate.key.read_bytes(), certificate.path.read_bytes())
        port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([secret]))
        self._server.start()
        flags = [*certificate.server_flags, "--upstream-ca", str(authority.path)]
        front = Front(stage, [f"https://localhost:{port}"], authority, *flags, collector=self.collector)
        trusted = grpc.ssl_channel_credentials(authority.path.read_bytes())
        return grpc.secure_channel(f"localhost:{front.port}", trusted), front.balancer

    def unary(self, method: str, request: bytes, timeout_s: float = PATIENCE_S) -> bytes:
        answer: bytes = self.channel.unary_unary(f"/test/{method}")(request, timeout=timeout_s)
        return answer

    def close(self) -> None:
        self.channel.close()
        self._server.stop(0).wait()
        self.balancer.begin_close()


@pytest.fixture(scope="module", params=["cleartext", "tls"])
def shared_setting(
    request: pytest.FixtureRequest, shared_stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    pair = None
    if request.param == "tls":
        authority = Authority(tmp_path_factory.mktemp("certificates"))
        pair = (authority, authority.issue("DNS:localhost", "IP:127.0.0.1"))
    made = Setting(shared_stage, pair)
    yield made
    made.close()


@pytest.fixture
def setting(shared_setting: Setting) -> Setting:
    shared_setting.service.cancelled.clear()
    return shared_setting


@pytest.mark.parametrize("size", [0, 10, 100_000, 1_000_000])
def test_unary(setting: Setting, size: int) -> None:
    request = bytes(range(256)) * (size // 256 + 1)
    assert setting.unary("Unary", request) == request[::-1]


def test_many_calls_at_once(setting: Setting) -> None:
    calls = [setting.channel.unary_unary("/test/Unary").future(b"%d!" % n) for n in range(200)]
    assert [call.result(PATIENCE_S) for call in calls] == [(b"%d!" % n)[::-1] for n in range(200)]


def test_server_streaming(setting: Setting) -> None:
    answers = list(setting.channel.unary_stream("/test/Serve")(b"500", timeout=PATIENCE_S))
    assert answers == [b"%d" % n for n in range(500)]


def test_client_streaming(setting: Setting) -> None:
    parts = [b"x" * 10_000] * 100
    assert setting.channel.stream_unary("/test/Collect")(iter(parts), timeout=PATIENCE_S) == b"".join(parts)


def test_bidirectional_streaming_in_lockstep(setting: Setting) -> None:
    may_send = threading.Semaphore(1)

    def requests() -> Iterable[bytes]:
        for number in range(50):
            may_send.acquire()
            yield b"%03d" % number

    answers = []
    for answer in setting.channel.stream_stream("/test/Echo")(requests(), timeout=PATIENCE_S):
        answers.append(answer)
        may_send.release()
    assert answers == [(b"%03d" % number)[::-1] for number in range(50)]


def test_error_comes_as_trailers(setting: Setting) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        setting.unary("Fail", b"")
    call = caught.value
    assert (call.code(), call.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now")
    assert ("x-why", "because") in call.trailing_metadata()


def test_unknown_method(setting: Setting) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        setting.unary("Nothing", b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_deadline_ends_the_call_at_the_server(setting: Setting) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        setting.unary("Slow", b"", timeout_s=0.3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert setting.service.cancelled.wait(PATIENCE_S)


def test_cancellation_reaches_the_server(setting: Setting) -> None:
    call = setting.channel.unary_unary("/test/Slower").future(b"")
    with pytest.raises(grpc.FutureTimeoutError):
        call.result(0.3)
    call.cancel()
    assert setting.service.cancelled.wait(PATIENCE_S)
    tree = setting.collector.wait_for_tree(for_target("/test/Slower"))
    event = tree.one("backend_request_h2").event("stream_reset")
    assert event.attributes == {"h2.error_code": "CANCEL", "h2.reset_by": "local"}
