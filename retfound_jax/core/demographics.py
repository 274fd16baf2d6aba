"""Words for who people are, as everything that stores them, counts them or judges by them uses them."""

from __future__ import annotations

MISSING = 'missing'  # nobody asked, or nobody wrote it down
DECLINED = 'declined'  # the person was asked and did not say
NOT_IN_SCHEME = 'not in scheme'  # an ethnicity that the classification has no category for
NOT_A_GROUP = frozenset({MISSING, DECLINED, NOT_IN_SCHEME})  # shown as rows of their own, never the best or the worst group
FLOOR = 20  # [patients] a group of fewer is not printed
FLOOR_POSITIVE = 10  # [patients] with fewer positive, or fewer negative ones, a group's performance is not printed
