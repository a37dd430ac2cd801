"""TCP, TLS and Unix sockets carry the same load: the same tokens, the same kinds of failure, and a calibration of their own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from assets.benchmark.load.arrivals import ClosedLoop
from assets.benchmark.load.calibration import calibrate
from assets.benchmark.load.certificate import write_certificate
from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.endpoint import Endpoint, EndpointError, Transport
from assets.benchmark.load.probe import served_models
from assets.benchmark.load.session import LoadSession, single
from tests import ground_truth_server


@dataclass(frozen=True)
class Server:
    """A running server, and the certificate to trust where it has one."""

    url: str
    ca_file: str | None = None

    def endpoint(self) -> Endpoint:
        return Endpoint.parse(self.url, ca_file=self.ca_file)


@pytest.fixture(scope="module", params=["tcp", "tls", "unix"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("s") / "s"
    if request.param == "tls":
        write_certificate(path)
    certificate = path if request.param == "tls" else None
    with ground_truth_server.running(unix_path=path if request.param == "unix" else None, certificate=certificate) as url:
        yield Server(url, None if certificate is None else str(certificate))


def measure(endpoint: Endpoint, scenario: dict[str, object], requests: int = 6, timeout_s: float = 20) -> list[RequestRecord]:
    session = LoadSession(endpoint, "truth", timeout_s, body_fields={"scenario": scenario}, fixed_length="fault" not in scenario)
    return session.put(single([[1] * 8] * requests, 4), ClosedLoop(3)).records


@pytest.mark.parametrize("scenario", [{"ttft_ms": 40, "gap_ms": 5}, {"bytes_per_write": 1}, {"close_after": True}, {"framing": "close"}])
def test_every_token_arrives_whatever_carries_it(server: Server, scenario: dict[str, object]) -> None:
    records = measure(server.endpoint(), scenario)
    assert [(record.failure, record.chunks, record.output_tokens) for record in records] == [(None, 4, 4)] * 6
    assert all(record.ttft_ms is not None and record.ttft_ms >= float(str(scenario.get("ttft_ms", 0))) for record in records)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("close_mid_stream", "disconnected"),
        ("endless", "response_too_large"),
        ("gigantic_chunk", "response_too_large"),
        ("not_http", "malformed_http"),
        ("http_500", "http_5xx"),
        ("gzip", "not_an_event_stream"),
    ],
)
def test_what_goes_wrong_has_the_same_name_on_each(server: Server, fault: str, kind: str) -> None:
    assert [record.failure for record in measure(server.endpoint(), {"fault": fault}, requests=3)] == [kind] * 3


def test_a_server_that_trickles_ends_with_the_timeout_on_each(server: Server) -> None:
    assert [record.failure for record in measure(server.endpoint(), {"fault": "drip"}, requests=2, timeout_s=2.5)] == ["timeout"] * 2


def test_a_plain_page_is_had_over_each(server: Server) -> None:
    """What the server lists is what error messages name."""
    assert served_models(server.endpoint(), 10) == ["truth"]


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    write_certificate(certificate)
    with ground_truth_server.running(certificate=certificate) as url:
        [record] = measure(Endpoint.parse(url), {}, requests=1)
        assert record.failure == "connect"
        assert "certificate" in record.detail
        [accepted] = measure(Endpoint.parse(url, verify=False), {}, requests=1)
        assert accepted.failure is None


def test_tls_asked_of_a_plain_server_is_a_failed_connection() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as plain:
        Thread(target=plain.serve_forever, daemon=True).start()
        [record] = measure(Endpoint.parse(f"https://127.0.0.1:{plain.server_port}", verify=False), {}, requests=1)
        plain.shutdown()
    assert record.failure == "connect"
    assert "TLS" in record.detail


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    with pytest.raises(EndpointError, match=r"wrong\.pem cannot be read as PEM certificates"):
        Endpoint.parse("https://127.0.0.1:1", ca_file=str(wrong)).tls_context()


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_the_client_is_calibrated_over_what_it_measures_over(transport: Transport) -> None:
    found = calibrate(4, transport=transport, requests=12, tokens=8)
    assert (found.transport, found.requests, found.failed) == (transport, 12, 0)
    assert found.ttft_error_ms.p99 is not None
    # the kernel stamps bytes before TLS decrypts them; on Unix sockets it does not stamp
    assert (found.receive_lag_ms.p50 is not None) == (transport != "unix")


def test_a_certificate_is_one_that_its_own_key_signed(tmp_path: Path) -> None:
    path = tmp_path / "made.pem"
    write_certificate(path)
    assert path.stat().st_mode & 0o077 == 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
