"""Startup, readiness and liveness probes: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import aiohttp


async def probe(spec: Mapping[str, Any], container: Mapping[str, Any], host: str) -> str | None:
    """None when it succeeds, else why it does not. Kinds: httpGet, tcpSocket."""
    timeout_s = spec["timeoutSeconds"]
    if "httpGet" in spec:
        action = spec["httpGet"]
        url = f"http://{action.get('host', host)}:{_port(action['port'], container)}{action['path']}"
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session, session.get(url) as answer:
                if 200 <= answer.status < 400:
                    return None
                return f"HTTP probe failed with statuscode: {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f'Get "{url}": {error or "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"}'
    if "tcpSocket" in spec:
        port = _port(spec["tcpSocket"]["port"], container)
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(spec["tcpSocket"].get("host", host), port)
        except (OSError, TimeoutError) as error:
            return f"dial tcp {host}:{port}: {error}"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return None
    return "the fake kubelet knows the probes httpGet and tcpSocket"


async def succeeds(spec: Mapping[str, Any], container: Mapping[str, Any], host: str) -> str | None:
    """Probe until it succeeds: None. After failureThreshold failures in a row: the last reason."""
    await asyncio.sleep(spec.get("initialDelaySeconds", 0))
    failures = 0
    while (problem := await probe(spec, container, host)) is not None:
        failures += 1
        if failures >= spec["failureThreshold"]:
            return problem
        await asyncio.sleep(spec["periodSeconds"])
    return None


async def fails(spec: Mapping[str, Any], container: Mapping[str, Any], host: str) -> str:
    """Probe until it has failed failureThreshold times in a row: the last reason."""
    await asyncio.sleep(spec.get("initialDelaySeconds", 0))
    failures = 0
    while True:
        problem = await probe(spec, container, host)
        failures = failures + 1 if problem else 0
        if problem and failures >= spec["failureThreshold"]:
            return problem
        await asyncio.sleep(spec["periodSeconds"])


def _port(port: int | str, container: Mapping[str, Any]) -> int:
    if isinstance(port, int):
        return port
    return next(int(each["containerPort"]) for each in container.get("ports", []) if each.get("name") == port)
