"""Events come out whole and once, whatever way their bytes are split and their lines end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from assets.benchmark.load.sse import SseDecoder
from tests.unit.benchmark.test_http1 import split

TEXT = st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12)


@settings(max_examples=100)
@given(
    events=st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=6),
    newline=st.sampled_from(["\n", "\r", "\r\n"]),
    noise=st.sampled_from(["", ": ping", "event: delta", "id"]),
    cuts=st.lists(st.integers(min_value=0, max_value=10_000), max_size=20),
)
def test_any_split_gives_the_same_events(events: list[list[str]], newline: str, noise: str, cuts: list[int]) -> None:
    lines = [line for event in events for line in ([noise] if noise else []) + [f"data: {part}" for part in event] + [""]]
    stream = "".join(line + newline for line in lines).encode()
    decoder = SseDecoder()
    decoded = [event for piece in split(stream, cuts) for event in decoder.feed(piece)]
    assert decoded == ["\n".join(event).encode() for event in events]
    assert not decoder.pending


def test_a_blank_after_the_colon_is_optional_and_a_byte_order_mark_is_dropped() -> None:
    assert SseDecoder().feed(b'\xef\xbb\xbfdata:{"a":1}\n\ndata\n\n') == [b'{"a":1}', b""]


def test_a_torn_event_is_pending_and_never_given_out() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: {}\n") == []
    assert decoder.pending
