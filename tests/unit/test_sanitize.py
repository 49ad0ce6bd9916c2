"""Whatever is shown holds no secret, no control character and no endless value."""

import pytest

from odn.errors import ConfigError, OdnError
from odn.sanitize import LONGEST, sanitized

ENVIRONMENT = {
    "KFP_TOKEN": "tok-12345",
    "AWS_ENDPOINT_URL": "http://minio:hunter-22@store:9000",
    "MLFLOW_TRACKING_URI": "postgresql://me:p%40ss/word1@db/x?sslkey=abcdef",
    "TOKEN_FILE": "/var/run/token-file",
    "PWD": "/srv/project",
    "OLDPWD": "/srv/other",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pw@host:80/x?token=abc", "http://***@host:80/x?***"),
        ("(see https://host/x?X-Amz-Signature=abc).", "(see https://host/x?***)."),
        ("s3://key:pw@bucket/prefix", "s3://***@bucket/prefix"),
        ("http://u:p/w@host/x", "http://***@host/x"),
        ("refused tok-12345", "refused ***"),
        ("user minio, hunter-22", "user minio, ***"),
        ("password p@ss/word1 is wrong", "password *** is wrong"),
        ("FATAL: password=hunter2, host=db", "FATAL: password=***, host=db"),
        ("Authorization: Bearer abc.def.ghi", "Authorization: Bearer ***"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    """In an address, behind a name that says so, and as values of the environment, decoded or not."""
    assert sanitized(text, environment=ENVIRONMENT) == shown


@pytest.mark.parametrize(
    "text",
    [
        "models:/odn-digits@champion",
        "http://localhost:8080/#/runs/details/1",
        "git@github.com:a/b.git",
        "https://host/a@b/c",
        "sqlite:///mlflow.db",
        "set KFP_TOKEN to a token",
        "/var/run/token-file",
        "/srv/project/model is missing",
        "Größe: 日本 ✓",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Names of variables, references to models and plain addresses are what a message is for."""
    assert sanitized(text, environment=ENVIRONMENT) == text


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x00", "\x85", "\u2028", "\u202e", "\udcff"])
def test_control_characters_are_written_out(character: str) -> None:
    """A name cannot forge a line, color the terminal or turn text around."""
    shown = sanitized(f"a{character}b", environment={})
    assert shown.isprintable()
    assert shown == f"a{character.encode('unicode_escape').decode()}b"


def test_an_endless_value_is_cut_in_its_middle() -> None:
    """The beginning says what it is about, the end what to do."""
    shown = sanitized("seed: got " + "9" * 10_000_000 + "; write a number", environment={})
    assert len(shown) < LONGEST + 100
    assert shown.startswith("seed: got 9")
    assert shown.endswith("9; write a number")


def test_an_error_has_a_line_for_each_argument_and_no_other() -> None:
    """Lines are made by the program, never by a value."""
    error: OdnError = ConfigError("seed: got 'a\nodn: all is well'", "unknown setting x")
    assert error.lines == ("seed: got 'a\\nodn: all is well'", "unknown setting x")
    assert str(error) == "\n".join(error.lines)
