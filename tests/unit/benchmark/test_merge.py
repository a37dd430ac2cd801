"""Several load processes are one: their spools, read while they grow, give exactly the numbers that one process would have given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.exchange import NO_STAMP, Exchange, SpoolReader, TransportFailure
from assets.benchmark.load.session import in_order
from assets.benchmark.load.statistics import Asked, load_statistics
from tests.unit.benchmark.test_decode import DONE, MS, decode, exchange, finish, text, usage


@st.composite
def exchanges(draw: st.DrawFn) -> list[Exchange]:
    """Requests that overlap, start at the same instant, fail, or carry several tokens in a chunk; with kernel stamps or without."""
    made: list[Exchange] = []
    for chain in range(draw(st.integers(1, 30))):
        start_ms, first_ms = draw(st.integers(0, 50)), draw(st.integers(1, 400))
        gaps = draw(st.lists(st.integers(0, 30), max_size=4))
        arrivals = [(float(first_ms), text("a"))]
        for gap in gaps:
            arrivals.append((arrivals[-1][0] + gap, text("b c")))
        failure = draw(st.sampled_from([TransportFailure.NONE] * 4 + [TransportFailure.DISCONNECTED, TransportFailure.TIMEOUT]))
        end_ms = arrivals[-1][0]
        one = exchange(*arrivals, (end_ms, finish()), (end_ms, usage(7, 1 + 2 * len(gaps))), (end_ms, DONE), failure=failure)
        one.chain, one.detail = chain, "ü" * draw(st.integers(0, 3))
        one.due_ns = one.start_ns = start_ms * MS
        one.end_ns += start_ms * MS
        stamped = draw(st.booleans())
        for index, user_ns in enumerate(one.user_ns):
            one.user_ns[index] = user_ns + start_ms * MS + 1000
            one.kernel_ns[index] = user_ns + start_ms * MS if stamped else NO_STAMP
        made.append(one)
    return made


def through_spools(dealt: list[list[Exchange]], cuts: list[int]) -> list[RequestRecord]:
    """What is read from one spool a process, whenever these have come to the lengths of `cuts`, and at the end."""
    spools = [b"".join(one.to_frame() for one in mine) for mine in dealt]
    written = 0
    readers = [SpoolReader(lambda offset, size, spool=spool: spool[:written][offset : offset + size]) for spool in spools]  # type: ignore[misc]
    records: list[RequestRecord] = []
    for cut in [*sorted(cuts), max(map(len, spools))]:
        written = cut
        records += [decode(one) for reader in readers for one in reader.new_exchanges()]
    return in_order(records)


@given(exchanges(), st.integers(1, 5), st.lists(st.integers(0, 4000), max_size=6), st.randoms())
def test_merged_processes_equal_one(made: list[Exchange], processes: int, cuts: list[int], random: object) -> None:
    one = through_spools([made], [])
    dealt: list[list[Exchange]] = [[] for _ in range(processes)]
    for exchange_ in made:
        dealt[random.randrange(processes)].append(exchange_)  # type: ignore[attr-defined]
    merged = through_spools(dealt, cuts)
    assert merged == one
    assert load_statistics(merged, Asked()) == load_statistics(one, Asked())
