"""What a target of `odn specialise` may say, and how one that is refused is named."""

import pytest

from odn.errors import ConfigError
from odn.models.cost import Cost
from odn.searching.targets import read_target, read_targets

WHOLE = Cost(n_params=1000, size_bytes=4000, macs=100_000)


def test_a_target_reads_back_as_it_is_written() -> None:
    """Spaces and order do not matter; equal targets have one text and one slug."""
    target = read_target("latency_ms<=1.5, accuracy >= 0.98,bytes<=100000")
    assert target.text == "accuracy>=0.98,bytes<=100000,latency_ms<=1.5"
    assert target.slug == "accuracy-0.98_bytes-100000_latency-ms-1.5"
    assert read_target(target.text) == target


def test_below_one_a_count_is_a_share_of_the_whole() -> None:
    """One and more is the count itself."""
    target = read_target("parameters<=250,macs<=0.3")
    assert target.budgets(WHOLE) == {"parameters": 250, "macs": pytest.approx(30_000)}
    assert target.excess(Cost(n_params=300, size_bytes=9, macs=30_000), whole=WHOLE) == {"parameters": pytest.approx(0.2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy>=1.2", "an accuracy is a fraction, at most 1; got 1.2"),
        ("bytes<=0", "bytes must be a number above 0; got 0"),
        ("accuracy>=-1", "accuracy must be a number above 0; got -1"),
        ("macs<=nan", "macs must be a number above 0; got nan"),
        ("macs<=inf", "macs must be a number above 0; got inf"),
        ("bytes<=1000.5", "bytes is a whole number, or below 1 a share"),
        ("accuracy<=0.9", "accuracy is bounded by >=; got <="),
        ("bytes>=10", "bytes is bounded by <=; got >="),
        ("bytes<=10,bytes<=20", "two bounds on bytes; keep one"),
        ("accuracy>=0.9,accuracy<=0.8", "accuracy is bounded by >=; got <="),
        ("latency<=2", "unknown kind latency (did you mean latency_ms?)"),
        ("speed<=2", "unknown kind speed (known are accuracy, parameters, bytes, macs, latency_ms)"),
        ("macs<=many", "'many' is no number"),
        ("bytes<=1e300", "every network meets bytes of 1e+300; leave it out, or take at most 1e+15"),
        ("latency_ms<=1e300", "every network meets latency_ms of 1e+300; leave it out, or take at most 1e+09"),
        ("macs<=1e999", "macs must be a number above 0; got inf"),
        ("macs<=-inf", "macs must be a number above 0; got -inf"),
        ("accuracy>=nan", "accuracy must be a number above 0; got nan"),
        ("accuracy>=0", "accuracy must be a number above 0; got 0"),
        ("accuracy>=", "no number stands behind accuracy>=; write such as accuracy>=0.98"),
        ("bytes<=", "no number stands behind bytes<="),
        ("accuracy>=,bytes<=1", "no number stands behind accuracy>="),
        ("accuracy>==0.9", "accuracy is bounded by >=; got >=="),
        ("accuracy>=>=0.9", "accuracy is bounded by >=; got >=>="),
        ("accuracy=>0.9", "accuracy is bounded by >=; got =>"),
        ("accuracy", "'accuracy' is no bound"),
        (">=0.9", "'>=0.9' is no bound"),
        ("accuracy>=0.9,", "'' is no bound"),
        ("bytes<=1_000", "'1_000' is no number"),
        ("bytes<=１０", "'１０' is no number"),
        ("bytes<=0x10", "'0x10' is no number"),
        ("bytes<=infinity", "'infinity' is no number"),
        ("accuracy>=0.9 0.8", "'accuracy>=0.9 0.8' is no bound"),
        (f"bytes<={'9' * 5000}", "bytes must be a number above 0; got inf"),
        ("small", "'small' is no bound; write such as accuracy>=0.98"),
        ("", "'' is no bound"),
    ],
)
def test_a_target_that_cannot_be_met_or_read_is_refused(text: str, message: str) -> None:
    """The refusal names the target and what is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        read_target(text)
    assert str(caught.value).startswith(f"--target {text[:1000]}")
    assert len(str(caught.value).splitlines()) == 1
    assert message in str(caught.value)


def test_every_refused_target_gets_a_line_and_none_stands_twice() -> None:
    """One run is enough to mend all."""
    with pytest.raises(ConfigError) as caught:
        read_targets(["accuracy>=2", "macs<=0.3", "bytes<=0"])
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(ConfigError, match="stands twice"):
        read_targets(["bytes<=10,macs<=0.3", "macs<=0.3,bytes<=10"])
    with pytest.raises(ConfigError, match="name at least one"):
        read_targets([])


def test_the_largest_bounds_still_name_a_folder() -> None:
    """A slug is a folder's name, and part of a model's."""
    text = "accuracy>=0.12345678901234568,parameters<=1e15,bytes<=1e15,macs<=1.2345678901234567e-300,latency_ms<=1e9"
    assert len(read_target(text).slug) < 200
    assert read_target(read_target(text).text) == read_target(text)
