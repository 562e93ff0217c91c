from __future__ import annotations

import signal

import pytest

from cellflow.engine.runtime import interruption as interrupt
from cellflow.engine.runtime.interruption import Interrupted, Interruption


def test_a_signal_is_noted_and_reaches_the_handler_from_before_at_the_end() -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Interruption() as signals:
            signals.check()
            signal.raise_signal(signal.SIGTERM)
            assert not seen
            with pytest.raises(Interrupted):
                signals.check()
        assert seen == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_is_a_keyboard_interrupt_in_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption() as signals:
        signal.raise_signal(signal.SIGINT)
        signals.check()


def test_another_error_comes_first() -> None:
    with pytest.raises(ValueError, match="broken"), Interruption():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("broken")


def test_the_same_wish_again_is_not_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until some seconds have passed; then it acts at once."""
    with pytest.raises(KeyboardInterrupt), Interruption():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(interrupt, "REPEAT_SECONDS", -1.0)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second wish was not heard")


def test_a_signal_that_was_ignored_stays_so() -> None:
    """A process started with nohup or & is not stopped by the Ctrl-C that is meant for others."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as signals:
            signal.raise_signal(signal.SIGINT)
            signals.check()
    finally:
        signal.signal(signal.SIGINT, before)
