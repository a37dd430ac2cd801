"""A recommendation as people read it in a terminal: what to run, on what, for how much, and the measurements that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]

# of one device; the others in the record are sums and counts
MEMORY_PARTS = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "engine_overhead_bytes", "reserved_bytes")
GIB = 1 << 30


def render_recommendation(document: Json) -> RenderableType:
    """The response of `POST /api/v1/recommend` for a terminal: the ranking, the best one with its evidence, and how it came about.

    Where nothing is feasible: what would have to give, and what that would allow.
    """
    found, relaxations = document["recommendations"], document["relaxations"]
    parts: list[RenderableType] = []
    if found:
        parts += [_ranking(found), Text(), _details(found[0])]
    else:
        parts.append(Text("Nothing that was measured meets this request.", style="bold yellow"))
        parts += _relaxations(relaxations) if relaxations else [Text.from_markup(_no_way_out(document["metadata"]))]
    warning = document["metadata"]["warning"]
    if warning is not None:
        parts += [Text(), Text(warning, style="yellow")]
    return Group(*parts, Text(), Text.from_markup(_how(document["metadata"])))


def _ranking(found: Sequence[Json]) -> Table:
    table = Table(title="Recommendations", title_justify="left", header_style="bold")
    for name in ("#", "run", "quantization", "engine"):
        table.add_column(name, overflow="fold")
    for name in ("replicas", "TTFT p90 ms", "TPOT p90 ms", "latency p90 ms", "tokens/s each", "USD/h", "USD/M tokens", "score"):
        table.add_column(name, justify="right")
    table.add_column("evidence")
    for entry in found:
        point = entry["operating_point"]
        table.add_row(
            str(entry["rank"]),
            escape(entry["label"]),
            escape(entry["quantization"]),
            escape(_engine(entry)),
            str(entry["replicas"]),
            _number(point["ttft_ms"]["p90"]),
            _number(point["tpot_ms"]["p90"]),
            _number(point["latency_ms"]["p90"]),
            _number(point["output_tokens_per_s"]),
            _number(_compared_price(entry, "per_hour_usd"), 4),
            _number(_compared_price(entry, "per_million_output_tokens_usd"), 4),
            f"{entry['score']:.3f}",
            escape(entry["evidence"][0]["kind"]),
        )
    return table


def _details(entry: Json) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, text in (
        ("Run", _what(entry)),
        ("On", _on_what(entry)),
        ("Cost", _cost(entry)),
        ("Load", _load(entry)),
        ("Meets", _headroom(entry)),
        ("Accuracy", _accuracy(entry)),
        ("Memory", _memory(entry)),
        *(("Evidence", _evidence(evidence)) for evidence in entry["evidence"]),
    ):
        grid.add_row(name, escape(text))
    return grid


def _relaxations(relaxations: Sequence[Json]) -> list[RenderableType]:
    table = Table(title="What would have to give: each row alone is enough", title_justify="left", header_style="bold")
    table.add_column("change")
    table.add_column("then the best is", overflow="fold")
    table.add_column("latency p90 ms", justify="right")
    table.add_column("USD/h", justify="right")
    for relaxation in relaxations:
        entry = relaxation["recommendation"]
        changes = "\n".join(f"{c['bound']}: {_value(c['asked'])} -> {_required(c)}" for c in relaxation["changes"])
        allowed = f"{entry['label']}, {entry['quantization']} on {_engine(entry)}, {_replicas(entry)}"
        latency = _number(entry["operating_point"]["latency_ms"]["p90"])
        table.add_row(escape(changes), escape(allowed), latency, _number(_compared_price(entry, "per_hour_usd"), 4))
    return [table]


def _no_way_out(metadata: Json) -> str:
    if metadata["candidates_considered"] == 0:
        return "No deployment has been measured under a workload of this use case: ./dyno demo or ./dyno bench measures some."
    return "No change of a single bound would help: see below what was left out and why."


def _how(metadata: Json) -> str:
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in metadata["filtered_out"].items()) or "none"
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in metadata["weights"].items()) or "none"
    bounds = ", ".join(f"{name} {_value(limit)}" for name, limit in metadata["sla"].items()) or "none"
    lines = [
        *_compared(metadata),
        f"For {_rate(metadata['rps'])}; bounds: {bounds}; weights: {weights}.",
        f"{metadata['candidates_considered']} deployments considered, left out: {left_out}.",
        f"Catalog version {metadata['catalog_version']}, cache {metadata['cache']}, {metadata['elapsed_ms']:.1f} ms.",
    ]
    return "\n".join(f"[dim]{escape(line)}[/dim]" for line in lines)


def _compared(metadata: Json) -> list[str]:
    if metadata["workload"] is None:
        return []
    return [f"Compared under {metadata['workload']}: {metadata['input_tokens']} tokens in, {metadata['output_tokens']} out."]


def _what(entry: Json) -> str:
    model = entry["model"]
    licence = f", licence {model['licence']}" if model["licence"] else ""
    return f"{model['name']} ({model['hub_id'] or model['id']}{licence}), {entry['quantization']}, on {_engine(entry)}"


def _on_what(entry: Json) -> str:
    hardware = entry["hardware"]
    what = f"{hardware['count']} x {hardware['gpu']}" if hardware["count"] else "a CPU host, no GPU"
    gpus = f" ({entry['gpus']} GPUs in all)" if entry["gpus"] and entry["replicas"] > 1 else ""
    return f"{_replicas(entry)} of {what}{gpus}"


def _cost(entry: Json) -> str:
    cost = entry["cost"]
    hour, tokens = cost["per_hour_usd"], cost["per_million_output_tokens_usd"]
    kinds = [
        f"{name}: {_number(hour[key], 4)} USD/h, {_number(tokens[key], 4)} USD per million output tokens"
        for key, name in (("on_demand", "on demand"), ("spot", "spot"))
        if hour[key] is not None
    ]
    source = f" ({cost['source']})" if cost["source"] else ""
    return "; ".join(kinds) + source if kinds else "the price is not known"


def _load(entry: Json) -> str:
    point = entry["operating_point"]
    load = (
        f"{point['concurrency']} request{'' if point['concurrency'] == 1 else 's'} in flight"
        if point["concurrency"] is not None
        else f"{_rate(point['request_rate_per_s'])} offered"
    )
    tokens = f"{point['input_tokens']} tokens in, {point['output_tokens']} out"
    rates = f"{_number(point['rps_per_replica'])} requests/s, {_number(point['output_tokens_per_s'])} tokens/s"
    return f"{load} on each replica: {rates} ({point['workload']}: {tokens})"


def _headroom(entry: Json) -> str:
    bounds = [
        f"{h['bound']} {_number(h['value'])} of {_number(h['limit'])} ({h['share']:.0%} left"
        + (", binding)" if h["bound"] == entry["binding_bound"] else ")")
        for h in entry["sla_headroom"]
    ]
    return "; ".join(bounds) or "no bounds were asked for"


def _accuracy(entry: Json) -> str:
    accuracy = entry["operating_point"]["accuracy"]
    return "not known" if accuracy is None else f"{accuracy:.1%} of answers are correct"


def _memory(entry: Json) -> str:
    vram = entry["vram"]
    shown = {name: size for name, size in vram["parts"].items() if name in MEMORY_PARTS and size}
    parts = ", ".join(f"{name.removesuffix('_bytes').replace('_', ' ')} {size / GIB:.2f}" for name, size in shown.items())
    return f"{vram['required_bytes'] / GIB:.2f} of {vram['available_bytes'] / GIB:.2f} GiB" + (f" ({parts})" if parts else "")


def _evidence(evidence: Json) -> str:
    failed = f", {evidence['requests_failed']} failed" if evidence["requests_failed"] else ""
    when = str(evidence["measured_at"])[:19].replace("T", " ")
    interval = evidence["interval"].get("e2e_p90_ms")
    spread = f", latency p90 {_number(interval[0])} to {_number(interval[1])} ms" if interval else ""
    return (
        f"{evidence['kind']} by {evidence['tool']} on {when} UTC, {evidence['requests']} requests{failed} "
        f"({evidence['protocol']} protocol){spread}; measurement {evidence['id']}; {evidence['source']}"
    )


def _engine(entry: Json) -> str:
    return f"{entry['framework']['name']} {entry['framework']['version']}"


def _replicas(entry: Json) -> str:
    return f"{entry['replicas']} replica" + ("" if entry["replicas"] == 1 else "s")


def _compared_price(entry: Json, unit: str) -> float | None:
    price: float | None = entry["cost"][unit].get(entry["cost"]["capacity"] or "on_demand")
    return price


def _number(value: float | None, digits: int = 3) -> str:
    """At least `digits` significant digits, no exponent, thousands apart."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    # rounding may carry: 999.6 becomes 1,000
    rounded = round(value, decimals) if decimals > 0 else round(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded)))) if rounded else decimals
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _required(change: Json) -> str:
    """A bound as it may be sent: rounded to the side on which it still holds."""
    required = change["required"]
    if not isinstance(required, float):
        return _value(required)
    lower_bound = change["bound"] in {"sla.min_accuracy", "load.rps"}
    scale = max(1.0, 10.0 ** (5 - math.floor(math.log10(abs(required))))) if required else 1.0
    rounded = (math.floor if lower_bound else math.ceil)(required * scale) / scale
    return f"{rounded:.10f}".rstrip("0").rstrip(".")


def _rate(per_s: float) -> str:
    return f"{_value(per_s)} request{'' if per_s == 1 else 's'}/s"


def _value(value: object) -> str:
    if value is None:
        return "any"
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0").rstrip(".")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
