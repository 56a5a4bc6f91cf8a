"""``metric:`` and ``margin:``, what a study declares of its decisions."""

import pytest

from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError
from mpdit.grid.declared import Declared
from mpdit.grid.grid import parse_grid
from tests.helpers.plans import plan, refusal


def declared(text: str) -> Declared:
    whole = f"study: s\n{text}"
    return parse_grid(whole, parse(whole, "g.yaml")).declared


def test_the_margin_is_a_share_for_ratios_and_a_number_for_differences() -> None:
    assert declared("") == Declared(None, 0.05, "ratio")
    assert declared("margin: 2.5 %") == Declared(None, 0.025, "ratio")
    assert declared("margin: 10%\nmetric: FID") == Declared("FID", 0.1, "ratio")
    assert declared("margin: 0.02\nmetric: recall") == Declared("recall", 0.02, "difference")
    # what matters in another unit cannot be guessed: without a margin nothing is equivalent
    assert declared("metric: recall") == Declared("recall", 0.0, "difference")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("margin: 0.05", "g.yaml:2: margin: 0.05 is a difference, and needs 'metric: NAME'"),
        ("margin: 0.05", "write 'margin: 5 %'"),
        ("margin: 5 %\nmetric: recall", "recall is compared by differences"),
        ("margin: 0.05\nmetric: FD", "FD is compared by ratios: write 'margin: 5 %'"),
        ("margin: -1\nmetric: recall", "should be a share such as 5 %, or a positive number"),
        ("margin: -5 %", "should be a share such as 5 %, or a positive number, not '-5 %'"),
        ("margin: 0 %", "should be a share"),
        ("margin: five", "should be a share"),
        ("metric: recal", "Did you mean 'recall'"),
    ],
)
def test_a_margin_that_means_nothing_is_one_message_with_what_to_write(
    text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        declared(text)
    assert said in str(error.value)


def test_a_metric_that_is_not_measured_is_one_message_with_what_to_write() -> None:
    said = refusal("metric: recall\nmargin: 0.1\n")
    assert said.startswith("grid.yaml:6: metric: recall is not measured in base_s0-")
    assert "'evaluate: {metrics: [fd, precision_recall]}'" in said
    variants = "variants: {a: {evaluate.metrics: [fd, kid]}, b: {mp_silu: true}}\n"
    assert "KD is not measured in b_s0-" in refusal(variants + "metric: KD\n")
    assert plan("metric: FID\n").runs  # whatever it is called: that depends on the extractor
