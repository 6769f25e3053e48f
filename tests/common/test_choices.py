"""Words of which one is to be chosen."""

import pytest

from seq2split.common.choices import check_choice


def test_the_nearest_is_named():
    check_choice("norm", "pre", ("pre", "post"))
    with pytest.raises(ValueError, match="norm is 'prenorm'; expected one of pre, post; did you mean 'pre'"):
        check_choice("norm", "prenorm", ("pre", "post"))
