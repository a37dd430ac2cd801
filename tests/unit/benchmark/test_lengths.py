"""Lengths are what their notation says: means, spreads, and the file's own values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.benchmark.load.lengths import LengthError, Lengths


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [("512", 512, 0), ("uniform:100,300", 200, 58), ("normal:500,50", 500, 50), ("lognormal:500,250", 500, 250)],
)
def test_mean_and_spread_are_those_asked(text: str, mean: float, deviation: float) -> None:
    lengths = np.asarray(Lengths.parse(text).sample(20_000, seed=1))
    assert lengths.mean() == pytest.approx(mean, rel=0.02)
    assert lengths.std() == pytest.approx(deviation, rel=0.05, abs=0.5)


@given(text=st.sampled_from(["7", "uniform:1,9", "normal:2,9", "lognormal:3,30"]), seed=st.integers(0, 50))
def test_lengths_are_whole_positive_and_made_again_by_their_seed(text: str, seed: int) -> None:
    lengths = Lengths.parse(text)
    sample = lengths.sample(50, seed)
    assert all(isinstance(length, int) and length >= 1 for length in sample)
    assert lengths.sample(50, seed) == sample


def test_an_empirical_distribution_has_the_files_values_only(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("10\n20\n\n20\n", encoding="utf-8")
    (tmp_path / "table.csv").write_text("input,output\n5,1\n6,2\n", encoding="utf-8")
    assert set(Lengths.parse(f"file:{tmp_path / 'lines.txt'}").sample(200, 0)) == {10, 20}
    assert set(Lengths.parse(f"file:{tmp_path / 'table.csv'}:output").sample(200, 0)) == {1, 2}


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "1.5", "normal:5", "normal:0,1", "uniform:9,1", "zipf:2,1", "normal:nan,1", "lognormal:5,inf"]
)
def test_what_is_no_length_is_refused_with_the_notation(text: str) -> None:
    with pytest.raises(LengthError, match="normal:MEAN,SD"):
        Lengths.parse(text)


@pytest.mark.parametrize(("content", "column"), [("", ""), ("a\n", ""), ("0\n", ""), ("x,y\n1,2\n", ":z")])
def test_a_file_without_lengths_is_a_clear_error(tmp_path: Path, content: str, column: str) -> None:
    (tmp_path / "lengths").write_text(content, encoding="utf-8")
    with pytest.raises(LengthError, match="has no lengths"):
        Lengths.parse(f"file:{tmp_path / 'lengths'}{column}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LengthError, match=r"none\.txt: No such file"):
        Lengths.parse(f"file:{tmp_path / 'none.txt'}")
