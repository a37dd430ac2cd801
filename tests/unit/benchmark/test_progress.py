"""Whoever follows the worker sees each event once, whole, and is not stopped by what a full disk leaves."""

from __future__ import annotations

from pathlib import Path

from assets.benchmark.progress import ProgressFollower


def test_a_growing_file_gives_each_event_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    follower = ProgressFollower(path)
    assert follower.new_events() == []
    path.write_text('{"event": "a"}\n{"event": "b"')
    assert follower.new_events() == [{"event": "a"}]
    with path.open("a") as file:
        file.write(', "n": 1}\n')
    assert follower.new_events() == [{"event": "b", "n": 1}]
    assert follower.new_events() == []


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    """The next event was appended to half of the one that the disk refused."""
    path = tmp_path / "progress.jsonl"
    path.write_bytes(b'{"event": "requests_done", "do{"event": "b"}\n\xff\xfe\n7\n{"event": "c"}\n')
    assert ProgressFollower(path).new_events() == [{"event": "c"}]
