"""Who traces for XLA."""

import pytest

from seq2split.common.compilation import is_for_xla, tracing_for_xla


def test_it_holds_within():
    assert not is_for_xla()
    with tracing_for_xla():
        assert is_for_xla()
        with tracing_for_xla(False):
            assert not is_for_xla()
        assert is_for_xla()
    with pytest.raises(KeyError), tracing_for_xla():
        raise KeyError
    assert not is_for_xla()
