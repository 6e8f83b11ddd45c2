"""Random histories keep every promise, and would notice if a rule were broken."""

from __future__ import annotations

import logging
import random
from collections import Counter

import pytest

from .histories import Violation, run_history
from .mutants import MUTANTS

FIXED = 500
FRESH = 200


@pytest.fixture(autouse=True)
def quiet_and_the_same_randomness_afterwards():
    state = random.getstate()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    random.setstate(state)


def play(seeds) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts.update(run_history(seed).counts)
    return counts


@pytest.mark.parametrize("tenth", range(10))
def test_fixed_histories(tenth):
    size = FIXED // 10
    counts = play(range(tenth * size, (tenth + 1) * size))
    # The histories are worth something only if both ways of going on are among them.
    assert counts["starts that ended with an instance"] > size * 0.6
    assert counts["crashes in start"] > 0
    assert counts["wait: succeeded"] > 0
    assert counts["sync"] > counts["async"] > 0


def test_fresh_histories():
    first = random.SystemRandom().randrange(10**6, 10**9)
    print(f"the first seed is {first}")  # shown where it fails; a Violation names its own
    play(range(first, first + FRESH))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_histories_catch_a_broken_rule(mutant):
    with mutant():
        for seed in range(3000):
            try:
                run_history(seed)
            except Violation:
                return
    pytest.fail(f"3000 histories did not notice: {mutant.__doc__}")


def test_a_history_can_be_played_again():
    for seed in (3, 14, 15):
        assert run_history(seed).counts == run_history(seed).counts
