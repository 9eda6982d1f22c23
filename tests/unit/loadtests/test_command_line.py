"""The benchmark's options."""

import pytest

from loadtests.bench.__main__ import SECTIONS, parse
from loadtests.bench.systems import DEFAULT


def test_by_default_everything_is_measured_in_three_rounds() -> None:
    options = parse([])
    assert options.systems == list(DEFAULT)
    assert options.sections == list(SECTIONS)
    assert options.callers == [1, 8, 32, 64]
    assert (options.rounds, options.duration) == (3, 4.0)


def test_quick_shortens_only_what_was_not_set() -> None:
    assert (parse(["--quick"]).rounds, parse(["--quick"]).duration) == (1, 1.5)
    assert (parse(["--quick", "--rounds", "2"]).rounds, parse(["--quick", "--duration", "9"]).duration) == (2, 9.0)


@pytest.mark.parametrize("option", ["--models", "--systems", "--sections"])
def test_an_unknown_name_is_refused_with_the_known_ones(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([option, "nonsense"])
    assert "nonsense is none of" in capsys.readouterr().err
