from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from cellflow.storage.secrets import RedactSecrets, is_secret, redact, redact_tree


@pytest.mark.parametrize(
    "name",
    ["WANDB_API_KEY", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "SLACK_WEBHOOK_URL", "MY_SECRET", "DB_PASSWORD",
     "aws_secret_access_key", "HF_TOKEN", "GOOGLE_PRIVATE_KEY"],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    assert is_secret(name)
    assert redact("see xy-1234567 there", {name: "xy-1234567"}) == "see *** there"


@pytest.mark.parametrize(
    "name",
    ["KAGGLE_USERNAME", "HOME", "KEYBOARD", "TOKENIZERS_PARALLELISM", "WANDB_MODE", "MONKEY"],
)
def test_other_names(name: str) -> None:
    assert redact("see xy-1234567 there", {name: "xy-1234567"}) == "see xy-1234567 there"


def test_short_and_empty_values_do_not_blank_out_text() -> None:
    environ = {"A_KEY": "", "B_TOKEN": "1", "C_SECRET": "true"}
    assert redact("1 is true", environ) == "1 is true"


def test_every_spelling_of_a_secret() -> None:
    environ = {"A_KEY": 'ab/c"d\\efgh', "B_TOKEN": "ab/c"}
    for text in ('ab/c"d\\efgh', json.dumps('ab/c"d\\efgh'), "ab%2Fc%22d%5Cefgh"):
        assert "efgh" not in redact(f"x {text} y", environ)


def test_webhook_without_its_host() -> None:
    environ = {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/abcdef"}
    assert redact("POST /services/T0/B0/abcdef failed", environ) == "POST /*** failed"


@pytest.mark.parametrize("as_file", [True, False])
def test_private_key_of_google_credentials(tmp_path: Path, as_file: bool) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIabcdefgh\nMIIijklmnop\n-----END PRIVATE KEY-----\n"
    content = json.dumps({"client_email": "me@example.org", "private_key": key})
    path = tmp_path / "key.json"
    path.write_text(content)
    environ = (
        {"GOOGLE_APPLICATION_CREDENTIALS": str(path)} if as_file else {"GOOGLE_ACCOUNT": content}
    )
    for text in (key, json.dumps(key), "line MIIijklmnop"):
        assert "MII" not in redact(text, environ)
    assert redact(f"me@example.org, {path}", environ) == f"me@example.org, {path}"


def test_nested_values() -> None:
    environ = {"A_KEY": "secret-1"}
    value = {"a": ["x secret-1", 1, None], "b": {"c": "secret-1"}}
    assert redact_tree(value, environ) == {"a": ["x ***", 1, None], "b": {"c": "***"}}


def test_log_handler_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret-1")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactSecrets())
    logger = logging.getLogger("test-secrets")
    logger.propagate = False
    logger.addHandler(handler)
    logger.error("%s of %d", "secret-1", 2)
    logger.error("plain %s", "text")
    try:
        raise ValueError("with secret-1")
    except ValueError:
        logger.exception("failed")
    shown = stream.getvalue()
    assert shown.startswith("*** of 2\nplain text\nfailed\nTraceback")
    assert "ValueError: with ***" in shown
    assert "secret-1" not in shown
