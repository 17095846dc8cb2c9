# ruff: noqa: RUF001 -- the page writes true minus signs and dashes
import pytest

from pipeline.report import numbers


def test_measured_numbers_share_their_decimals() -> None:
    assert numbers.measured((0.0364, 0.00225, 0.0706), 0.068, plus=True) == ["+0.036", "+0.002", "+0.071"]
    assert numbers.measured((2.7, 0.0049), 0.0049) == ["2.7000", "0.0049"]
    assert numbers.measured((-0.01, 0.0), 0.5, plus=True) == ["−0.01", "0"]
    assert numbers.measured((5.0,), 0.0) == ["5.00"]


def test_a_border_next_to_zero_is_not_shown_as_zero() -> None:
    assert numbers.measured((0.5, 0.0004), 1.0) == ["0.5000", "0.0004"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.count(1234567), "1,234,567"),
        (numbers.count(-5), "−5"),
        (numbers.compact(99_999), "99,999"),
        (numbers.compact(123_456), "123k"),
        (numbers.compact(12_800_000_000), "12.8B"),
        (numbers.share(1, 3), "33.3 %"),
        (numbers.share(1, 100_000), "<0.1 %"),
        (numbers.share(99_999, 100_000), ">99.9 %"),
        (numbers.share(0, 5), "0 %"),
        (numbers.share(5, 5), "100 %"),
        (numbers.share(1, 0), "–"),
        (numbers.number(0.2514), "0.251"),
        (numbers.number(-1234.56), "−1,235"),
        (numbers.number(1.5e-9), "1.50e−09"),
        (numbers.number(float("nan")), "–"),
        (numbers.number(3.0), "3"),
        (numbers.signed(0.25), "+0.250"),
        (numbers.signed(-0.25), "−0.250"),
        (numbers.signed(0.0), "0"),
        (numbers.seconds(0.0204), "20 ms"),
        (numbers.seconds(59.7), "1 min 00 s"),
        (numbers.seconds(7260), "2 h 01 min"),
        (numbers.seconds(None), "–"),
        (numbers.size(999), "999 B"),
        (numbers.size(1_250_000), "1.2 MB"),
        (numbers.plain({"photos": 0.25, "n": 3, "ok": True}), "photos 0.2500, n 3, ok yes"),
        (numbers.plain(list(range(10)), 3), "0, 1, 2 and 7 more"),
    ],
)
def test_shown_as_people_read_it(shown: str, expected: str) -> None:
    assert shown == expected
