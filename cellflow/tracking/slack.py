"""A message in Slack when an experiment ends or fails."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from cellflow.errors import CellflowError
from cellflow.storage.plain_values import round_score
from cellflow.storage.records import dict_or_empty
from cellflow.tracking.tracker import Tracker, TrackerUnavailableError

__all__ = ["SlackTracker"]

WEBHOOK = "SLACK_WEBHOOK_URL"
_TIMEOUT = 10.0
_LONGEST = 3000
"""Slack cuts longer texts."""


class SlackTracker(Tracker):
    """Posts about the run `experiment` to the webhook that the environment variable SLACK_WEBHOOK_URL holds."""

    name = "slack"
    advice = f"check {WEBHOOK} and the network"

    def __init__(self, experiment: str):
        self._experiment = experiment
        self._webhook()

    def fail(self, what: str, message: str) -> None:
        """Post what failed, and why."""
        self._post(f":x: *{_escape(self._experiment)}*: {_escape(what)} failed\n{_escape(message)}")

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Post the scores."""
        self._post("\n".join(_report(self._experiment, metadata)))

    def _webhook(self) -> str:
        url = os.environ.get(WEBHOOK, "").strip()
        if not url:
            text = f"{WEBHOOK} is not set; put the URL of an incoming webhook there, or leave --slack out"
            raise TrackerUnavailableError(text)
        if urlsplit(url).scheme not in ("http", "https"):
            raise TrackerUnavailableError(f"{WEBHOOK} holds no URL that begins with https://")
        return url

    def _post(self, text: str) -> None:
        body = json.dumps({"text": text[:_LONGEST]}).encode()
        request = urllib.request.Request(
            self._webhook(), data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            raise CellflowError(f"the webhook answered {error.code}") from None
        except OSError as error:  # URLError and timeouts too; none of them names the URL
            reason = getattr(error, "reason", error)
            raise CellflowError(f"the webhook cannot be reached ({reason})") from None


_STATES = {
    "training": (":hourglass:", "has stopped before its training ended"),
    "trained": (":white_check_mark:", "is trained"),
    "predicted": (":white_check_mark:", "is predicted out of fold"),
    "calibrated": (":white_check_mark:", "is complete"),
}
"""What the status in metadata.json means for people."""


def _report(experiment: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Lines about how far an experiment has come."""
    where, comment = metadata.get("environment"), metadata.get("comment")
    mark, state = _STATES.get(str(metadata.get("status")), (":hourglass:", "has come further"))
    yield f"{mark} *{_escape(experiment)}* {state}" + (f" on {_escape(where)}" if where else "")
    if comment:
        yield f"_{_escape(comment)}_"
    cv = metadata.get("cv") or {}
    names = {"raw": "CV", "post": "with fitted thresholds", "expected": "expected on unseen images"}
    scores = {text: round_score(cv.get(key)) for key, text in names.items()}
    known = [f"{text} {score:.4f}" for text, score in scores.items() if score is not None]
    if known:
        yield ", ".join(known)
    folds = (metadata.get("model") or {}).get("folds") or []
    best = [(item.get("fold"), round_score(item.get("score"))) for item in folds]
    if best:
        yield "folds: " + ", ".join(
            f"{fold}: {score:.4f}" if score is not None else f"{fold}: none" for fold, score in best
        )
    trackers, publication = metadata.get("trackers") or {}, metadata.get("publication") or {}
    wandb = dict_or_empty(trackers.get("wandb")).get("run")
    for url in (wandb, trackers.get("sheet"), publication.get("url")):
        if isinstance(url, str) and url.startswith("http"):
            yield f"<{url}>"


def _escape(text: object) -> str:
    """Text that Slack shows as it is."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
