"""The checks of `campaign.py` in numbers that CI has time for."""

import pytest

import campaign


@pytest.mark.parametrize("name", campaign.CHECKS)
def test_nothing_is_lost_and_nothing_is_fooled(name, tmp_path):
    tally = campaign.run_check(name, tmp_path)
    assert tally.cases and not tally.failures, "\n".join(tally.failures)
