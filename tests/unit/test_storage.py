"""Storage: what is under an s3:// address arrives whole, and what goes wrong is said in plain words without a secret."""

import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from odn.errors import StorageError
from odn.storage import Address, download_prefix, fingerprint, parse_address, upload_folder

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    """Make a bucket of the test's own."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name)[:63].strip("-")
    s3.create_bucket(Bucket=name)
    return str(name)


@pytest.fixture
def strict_server(s3_server: str) -> Iterator[str]:
    """Let the server check keys and signatures, as AWS does, while a test runs."""
    for count in ("0", "inf"):
        request = urllib.request.Request(f"{s3_server}/moto-api/reset-auth", data=count.encode(), headers={"Content-Type": "text/plain"})
        urllib.request.urlopen(request).close()
        if count == "0":
            yield s3_server


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://pictures", Address("pictures", "")),
        ("s3://pictures/", Address("pictures", "")),
        ("s3://pictures/cats and dogs/v1/", Address("pictures", "cats and dogs/v1/")),
    ],
)
def test_an_address_is_a_bucket_and_a_prefix(text: str, address: Address) -> None:
    """A prefix ends in a slash, wherever the user put one."""
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["pictures/cats", "s3://", "s3:///cats", "https://pictures/cats", ""])
def test_anything_else_is_no_address(text: str) -> None:
    """An address that names no bucket is refused with the form that is expected."""
    with pytest.raises(StorageError, match="expected s3://bucket/prefix; got '" + text):
        parse_address(text)


def test_a_prefix_arrives_as_it_was_sent(s3: Any, bucket: str, tmp_path: Path) -> None:
    """Upload and download give the same files with the same bytes below any prefix."""
    sent = {"a/1.png": b"one", "a/2.png": b"two" * 100_000, "b/ü x.png": b""}
    for name, content in sent.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    assert upload_folder(tmp_path / "out", address=f"s3://{bucket}/deep/er") == [f"deep/er/{name}" for name in sorted(sent)]
    files = download_prefix(f"s3://{bucket}/deep/er", folder=tmp_path / "in")
    assert {path.relative_to(tmp_path / "in").as_posix(): path.read_bytes() for path in files} == sent


def test_a_prefix_is_a_folder_not_the_start_of_a_name(s3: Any, bucket: str, tmp_path: Path) -> None:
    """Under s3://b/cat there is nothing of s3://b/cathedral."""
    for key in ("cat/1.png", "cathedral/1.png"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    assert download_prefix(f"s3://{bucket}/cat", folder=tmp_path) == [tmp_path / "1.png"]


def test_more_objects_than_a_page_holds_all_arrive(s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing goes on after its first answer, here of three objects."""
    monkeypatch.setattr("odn.storage.PAGE", 3)
    for index in range(10):
        s3.put_object(Bucket=bucket, Key=f"{index}.png", Body=b"")
    assert len(download_prefix(f"s3://{bucket}", folder=tmp_path)) == 10


def test_hidden_names_stay_and_a_marker_becomes_a_folder(s3: Any, bucket: str, tmp_path: Path) -> None:
    """.DS_Store is not an image, and "empty/" shows an empty class."""
    for key in ("a/1.png", "a/.DS_Store", ".git/config", "empty/"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    download_prefix(f"s3://{bucket}", folder=tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["a", "a/1.png", "empty"]


@pytest.mark.parametrize("key", ["data/../../outside", "data//double", "data/back\\slash"])
def test_an_object_never_lands_outside_the_folder(s3: Any, bucket: str, tmp_path: Path, key: str) -> None:
    """A name that is no plain path is refused before anything is written."""
    s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    with pytest.raises(StorageError, match="an object of this name cannot become a file; rename it"):
        download_prefix(f"s3://{bucket}/data", folder=tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_an_object_named_like_a_folder_is_refused(s3: Any, bucket: str, tmp_path: Path) -> None:
    """A store may hold both "a" and "a/1.png"; a file system may not."""
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    s3.put_object(Bucket=bucket, Key="a/1.png", Body=b"x")
    with pytest.raises(StorageError, match="both an object and a folder of this name"):
        download_prefix(f"s3://{bucket}", folder=tmp_path)


def test_an_empty_prefix_names_bucket_prefix_and_endpoint(s3: Any, s3_server: str, bucket: str, tmp_path: Path) -> None:
    """Nothing there is an error that says where was looked."""
    with pytest.raises(StorageError, match=f"s3://{bucket}/nothing holds nothing at {s3_server}; check the bucket, the prefix"):
        download_prefix(f"s3://{bucket}/nothing", folder=tmp_path)


def test_a_missing_bucket_is_named(s3: Any, s3_server: str, tmp_path: Path) -> None:
    """The message has the bucket, the endpoint and what to check."""
    with pytest.raises(StorageError, match=f"s3://no-such/x at {s3_server} refuses: NoSuchBucket: there is no such bucket; check its name"):
        download_prefix("s3://no-such/x", folder=tmp_path)


def test_no_credentials_says_which_variables_to_set(no_aws: None, tmp_path: Path) -> None:
    """Without credentials nothing is sent, and the message names what boto3 looks for."""
    with pytest.raises(
        StorageError, match=r"s3://b/x at https://.* needs credentials and there are none.*; set AWS_PROFILE, or AWS_ACCESS_KEY_ID"
    ):
        download_prefix("s3://b/x", folder=tmp_path)


def test_half_a_credential_is_none(no_aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key without its secret is said to be a part only."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    with pytest.raises(StorageError, match="or only a part; set AWS_PROFILE"):
        download_prefix("s3://b/x", folder=tmp_path)


def test_a_missing_profile_is_named(no_aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AWS_PROFILE must be in the configuration."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match=r"nobody.* could not be found; mend AWS_PROFILE"):
        download_prefix("s3://b/x", folder=tmp_path)


def test_an_unknown_key_is_refused(s3: Any, bucket: str, strict_server: str, tmp_path: Path) -> None:
    """The store does not know who asks."""
    with pytest.raises(
        StorageError, match=f"s3://{bucket}/x at {strict_server} refuses: InvalidAccessKeyId: the access key is not known there"
    ):
        download_prefix(f"s3://{bucket}/x", folder=tmp_path)


@pytest.mark.parametrize(
    ("secret", "refusal"),
    [(None, "AccessDenied: these credentials may not do that; ask for"), (SECRET, "SignatureDoesNotMatch: the secret key is wrong")],
)
def test_denied_and_wrong_secrets_differ(
    s3: Any,
    s3_server: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    secret: str | None,
    refusal: str,
) -> None:
    """A user without rights and a user with a wrong secret hear different things, and neither hears the secret."""
    import boto3

    iam, name = boto3.Session().client("iam"), f"user-{secret is None}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret or key["SecretAccessKey"])
    request.getfixturevalue("strict_server")
    with pytest.raises(StorageError, match=f"s3://b-b-b/x at {s3_server} refuses: {refusal}") as caught:
        download_prefix("s3://b-b-b/x", folder=tmp_path)
    assert (secret or key["SecretAccessKey"]) not in str(caught.value)


def test_an_upload_that_is_refused_says_why(s3: Any, tmp_path: Path) -> None:
    """An upload has the store's own answer too, not the transfer's wrapping."""
    (tmp_path / "x").touch()
    with pytest.raises(StorageError, match=r"s3://no-such-bucket at .* refuses: NoSuchBucket: there is no such bucket"):
        upload_folder(tmp_path, address="s3://no-such-bucket")


def test_uploading_nothing_is_an_error(s3: Any, tmp_path: Path) -> None:
    """A folder without files would vanish in a store."""
    with pytest.raises(StorageError, match="holds no file to upload to s3://b"):
        upload_folder(tmp_path, address="s3://b")


def test_an_unreachable_endpoint_is_named_quickly(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refused connection is tried a bounded number of times, then told with the endpoint."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint := f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StorageError, match=f"s3://b/x at {endpoint} cannot be reached .*; check the network, and AWS_ENDPOINT_URL"):
            download_prefix("s3://b/x", folder=tmp_path)


def test_an_endpoint_that_is_no_url_is_shown(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A forgotten http:// is pointed at."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio:9000")
    with pytest.raises(StorageError, match="minio:9000; mend AWS_ENDPOINT_URL, which reads like http://host:port"):
        download_prefix("s3://b/x", folder=tmp_path)


@pytest.mark.parametrize("address", ["s3://ann:hunter22@b/x", "s3://ann:hunter/22@b/x", "s3://hunter22@b", "s3://b?token=hunter22"])
def test_credentials_in_an_address_are_refused(address: str) -> None:
    """They belong into the environment, and are not shown."""
    with pytest.raises(StorageError, match="without a user, a password or a query.*set AWS_PROFILE") as caught:
        parse_address(address)
    assert "22" not in str(caught.value)


def test_credentials_in_the_endpoint_are_not_shown(
    s3: Any, s3_server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What works with them works, and what fails says nothing of them."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.replace("://", "://minio:hunter22@"))
    s3.put_object(Bucket=bucket, Key="1.png", Body=b"x")
    assert download_prefix(f"s3://{bucket}", folder=tmp_path / "in") == [tmp_path / "in" / "1.png"]
    for name in (f"s3://{bucket}/nothing", "s3://no-such/x"):
        with pytest.raises(StorageError) as caught:
            download_prefix(name, folder=tmp_path / "in")
        assert "***@127.0.0.1" in str(caught.value)
        assert "hunter22" not in str(caught.value)


LISTING = (
    '<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>'
    '<Contents><Key>x/1.png</Key><Size>100000</Size><ETag>"a"</ETag></Contents></ListBucketResult>'
)


@contextmanager
def broken_store(how: str) -> Iterator[str]:
    """Serve a store that lists one object, whose body breaks off or stops; or one that is none."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            status = int(how) if how.isdecimal() else 200
            listed = LISTING.encode() if "list-type" in self.path and how in {"breaks", "stops"} else b"<html>sign in</html>"
            is_body = how in {"breaks", "stops"} and "list-type" not in self.path
            self.send_response(status)
            self.send_header("Content-Length", "100000" if is_body else str(len(listed)))
            self.send_header("Location", "/again")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"x" * 5000 if is_body else listed)
                self.wfile.flush()
                over.wait(20 if is_body and how == "stops" else 0)

        do_GET = do_HEAD = answer  # noqa: N815  the names that http.server calls

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        over.set()
        web.shutdown()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("breaks", "a body broke off 3 times: 5000 read"),
        ("stops", "a body broke off 3 times: Read timeout"),
        ("301", "what answers there sends elsewhere"),
        ("307", "what answers there sends elsewhere"),
        ("200", "check the bucket, the prefix and AWS_ENDPOINT_URL"),
        ("500", "the store failed, or what answers there is no object store"),
    ],
)
def test_a_store_that_is_broken_is_given_up(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, said: str
) -> None:
    """Each request is tried a bounded number of times; a long wait is told; no part of a file is left."""
    monkeypatch.setattr("odn.storage.READ_TIMEOUT", 0.4)
    monkeypatch.setattr("odn.waiting.FIRST", 0.6)
    with broken_store(how) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        begin = time.monotonic()
        with pytest.raises(StorageError, match=f"s3://b/x .*{endpoint}.*{said}"):
            download_prefix("s3://b/x", folder=tmp_path)
    assert time.monotonic() - begin < 30
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    if how == "stops":
        assert "0 objects are through; a request is given up after 0.4 s without a byte, 3 times)" in capsys.readouterr().err


def test_a_store_that_never_answers_is_given_up(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection, and that is all."""
    monkeypatch.setattr("odn.storage.READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint := f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StorageError, match=f"s3://b/x at {endpoint} cannot be reached .*Read timeout"):
            download_prefix("s3://b/x", folder=tmp_path)


def test_a_fingerprint_changes_with_what_is_there(s3: Any, bucket: str) -> None:
    """Another content, another name or one object more gives another digest; the same things give the same."""
    seen = []
    for key, body in (("a/1.png", b"one"), ("a/1.png", b"two"), ("a/2.png", b"two")):
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        seen.append(fingerprint(f"s3://{bucket}"))
        assert fingerprint(f"s3://{bucket}/") == seen[-1]
    assert len(set(seen)) == 3
