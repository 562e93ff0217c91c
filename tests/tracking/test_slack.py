from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cellflow.errors import CellflowError
from cellflow.tracking.slack import SlackTracker
from cellflow.tracking.tracker import TrackerUnavailableError

Make = Callable[[str], SlackTracker]


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(url: str) -> SlackTracker:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", url)
        return SlackTracker("exp")

    return make


def test_scores_at_the_end(hook: Any, metadata: dict[str, Any], tracker: Make) -> None:
    metadata |= {
        "comment": "less <augment> & more",
        "trackers": {
            "wandb": {"run": "https://wandb.example/r"},
            "sheet": "https://sheets.example/s",
        },
    }
    tracker(hook.url).finish(metadata)
    (text,) = hook.texts
    assert "*exp* is complete on kaggle" in text
    assert "less &lt;augment&gt; &amp; more" in text
    assert "CV 0.3123, with fitted thresholds 0.3301, expected on unseen images 0.3200" in text
    assert "folds: 0: 0.3100, 1: none" in text
    assert "<https://wandb.example/r>" in text and "<https://sheets.example/s>" in text


@pytest.mark.parametrize(
    ("status", "words"),
    [("trained", "is trained"), ("training", "has stopped before its training ended")],
)
def test_what_is_not_complete_is_not_called_so(
    hook: Any, status: str, words: str, tracker: Make
) -> None:
    tracker(hook.url).finish({"cv": None, "status": status})
    (text,) = hook.texts
    assert text.endswith(f"*exp* {words}")


def test_failure(hook: Any, tracker: Make) -> None:
    tracker(hook.url).fail("fold 2", "no <disk>")
    assert hook.texts == [":x: *exp*: fold 2 failed\nno &lt;disk&gt;"]


@pytest.mark.parametrize("url", ["", "hooks.slack.com/services/T0/B0/abcdef"])
def test_no_webhook_says_what_to_do(url: str, tracker: Make) -> None:
    with pytest.raises(TrackerUnavailableError, match="SLACK_WEBHOOK_URL") as caught:
        tracker(url)
    assert "abcdef" not in str(caught.value)


def test_errors_never_name_the_webhook(hook: Any, tracker: Make) -> None:
    hook.status = 404
    with pytest.raises(CellflowError, match="answered 404") as caught:
        tracker(hook.url).fail("a", "b")
    nowhere = "http://127.0.0.1:9/services/T000/B000/s3cr3t-path"
    with pytest.raises(CellflowError, match="cannot be reached") as second:
        tracker(nowhere).fail("a", "b")
    assert "s3cr3t" not in f"{caught.value}{second.value}"
