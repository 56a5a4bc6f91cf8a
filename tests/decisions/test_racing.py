import math

from mpdit.decisions.racing import best, survivors

RACE = {1: [3.0, 3.0], 2: [1.0, 4.0], 3: [2.0, 1.0], 4: [math.nan], 5: [9.0]}


def test_the_better_half_survives_each_seed() -> None:
    assert survivors(RACE, 0) == [1, 2, 3, 4, 5]
    assert survivors(RACE, 1) == [2, 3, 1]
    assert survivors(RACE, 2) == [3, 2]
    assert survivors({1: [3.0], 2: [1.0]}, 1, lower_is_better=False) == [1]


def test_the_best_point_is_chosen_among_those_that_ran_to_the_end() -> None:
    assert best(RACE) == 3
    assert best({1: [math.nan], 2: [math.nan]}) is None
    assert best({1: [1.0], 2: [2.0]}, lower_is_better=False) == 2
    assert best({}) is None
