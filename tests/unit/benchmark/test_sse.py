"""Events come out whole and once however their lines end, with the place at which each was complete."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from assets.benchmark.load.sse import read_events

TEXT = st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12)


@settings(max_examples=100)
@given(
    events=st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=6),
    newline=st.sampled_from(["\n", "\r", "\r\n"]),
    noise=st.sampled_from(["", ": ping", "event: delta", "id"]),
)
def test_events_are_read_and_located(events: list[list[str]], newline: str, noise: str) -> None:
    """Cut anywhere before an event's place it is not there yet; with its place it is."""
    lines = [line for event in events for line in ([noise] if noise else []) + [f"data: {part}" for part in event] + [""]]
    stream = "".join(line + newline for line in lines).encode()
    read = read_events(stream)
    assert read.data == ["\n".join(event).encode() for event in events]
    assert not read.torn
    for number, place in enumerate(read.completed_at):
        assert len(read_events(stream[:place]).data) == number
        assert len(read_events(stream[: place + 1]).data) == number + 1


def test_a_megabyte_without_a_line_end_is_read_in_one_pass() -> None:
    """A quadratic reader would take hours."""
    read = read_events(b"data: a\n\n" + b"x" * 2**22)
    assert (read.data, read.torn) == ([b"a"], True)


def test_a_blank_after_the_colon_is_optional_and_a_byte_order_mark_is_dropped() -> None:
    assert read_events(b'\xef\xbb\xbfdata:{"a":1}\n\ndata\n\n').data == [b'{"a":1}', b""]


def test_a_torn_event_is_told_and_never_given_out() -> None:
    for stream in (b"data: {}\n", b"data: {}", b"data: a\n\nda"):
        read = read_events(stream)
        assert read.torn
        assert len(read.data) == stream.count(b"\n\n")
