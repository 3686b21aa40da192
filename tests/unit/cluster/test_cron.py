"""Six fields, the seconds first; whatever else is refused with what is meant perhaps."""

import pytest

from xcflow_pipelines.cluster.cron import checked_cron
from xcflow_pipelines.shell import BadUsageError


@pytest.mark.parametrize(
    ("text", "checked"),
    [
        ("0 0 3 * * *", "0 0 3 * * *"),
        ("  0  30 2 ? * mon-fri ", "0 30 2 ? * MON-FRI"),
        ("0 */15 8-18/2 1,15 jan,JUL 0", "0 */15 8-18/2 1,15 JAN,JUL 0"),
        ("59 59 23 31 12 6", "59 59 23 31 12 6"),
        ("0 0 3 29 feb *", "0 0 3 29 FEB *"),
        ("0 0 3 31 2,apr-5 ?", "0 0 3 31 2,APR-5 ?"),
        ("0 0 3 31 2/3 *", "0 0 3 31 2/3 *"),
        ("0 0 3 31,1 feb *", "0 0 3 31,1 FEB *"),
        ("0 0 3 31 feb MON", "0 0 3 31 FEB MON"),
    ],
)
def test_what_means_something_is_taken_in_one_form(text, checked):
    assert checked_cron(text) == checked


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("0 3 * * *", "has 5 fields, .* 6 with the seconds first: '0 0 3 \\* \\* \\*' is the same"),
        ("@daily", "must have 6 fields"),
        ("", "must have 6 fields"),
        ("0 0 3 * * * 2026", "must have 6 fields"),
        ("60 0 3 * * *", "second: '60' is not within 0 to 59"),
        ("0 60 3 * * *", "minute: '60' is not within 0 to 59"),
        ("0 0 24 * * *", "hour: '24' is not within 0 to 23"),
        ("0 0 3 0 * *", "day of the month: '0' is not within 1 to 31"),
        ("0 0 3 * 13 *", "month: '13' is not within 1 to 12, or JAN to DEC"),
        ("0 0 3 * MON *", "month: 'MON' is not within"),
        ("0 0 3 * * 7", "day of the week: '7' is not within 0 to 6, or SUN to SAT"),
        ("0 0 3 L * *", "day of the month: 'L' is not within"),
        ("0 0 3 * * 5#2", "day of the week: '5#2' is not within"),
        ("0 0 3 * * FRI-MON", "day of the week: 'FRI-MON' begins after its end"),
        ("0 */0 * * * *", "minute: '\\*/0': after / stands a step of at least 1"),
        ("0 1-2-3 * * * *", "minute: '1-2-3' is not within"),
        ("0 1, * * * *", "minute: '' is not within"),
        ("0 -1 * * * *", "minute: '-1' is not within"),
        ("0 0 3 30-31 FEB *", "never comes: no such month has such a day"),
        ("0 0 3 31/2 4-10/5,11,4-6/2 ?", "never comes"),
    ],
)
def test_what_means_nothing_is_one_line(text, line):
    with pytest.raises(BadUsageError, match=line):
        checked_cron(text)
