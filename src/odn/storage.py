"""Move files to and from s3:// addresses: the only module that imports boto3.

Where the store is and who asks comes from the environment, through boto3's own chain: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL for a
store that is not AWS's, AWS_PROFILE, AWS_ACCESS_KEY_ID and so on. No secret is ever part of a message.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, BinaryIO

from odn.errors import StorageError
from odn.waiting import waiting

N_THREADS = 16
PAGE = 1000  # objects a listing's answer; more is not served
CONNECT_TIMEOUT = 5  # seconds
READ_TIMEOUT = 20  # seconds without a byte
N_TRIES = 3  # of each request and of each body that breaks off, the first one included

CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, where they are temporary)"
ELSEWHERE = "what answers there sends elsewhere, again and again; check AWS_ENDPOINT_URL and AWS_REGION"
WAY_OUT = {
    "NoSuchBucket": "there is no such bucket; check its name, and AWS_ENDPOINT_URL for a store that is not AWS's",
    "InvalidAccessKeyId": f"the access key is not known there; {CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is wrong; {CREDENTIALS}",
    "ExpiredToken": "the credentials have expired; renew them",
    "AccessDenied": "these credentials may not do that; ask for s3:ListBucket and s3:GetObject (to upload, s3:PutObject)",
    "403": "these credentials may not do that; ask for s3:ListBucket and s3:GetObject (to upload, s3:PutObject)",
    "500": "the store failed, or what answers there is no object store; check AWS_ENDPOINT_URL",
    "404": "there is no such object; if it is a shard of prepared data, 'dvc repro -f prepare' writes it anew",
    "301": ELSEWHERE,
    "307": ELSEWHERE,
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION to it",
}


@dataclass(frozen=True)
class Address:
    """Name a place in an object store."""

    bucket: str
    prefix: str  # "" or ends in "/", so that s3://b/cat never means s3://b/cathedral

    def __str__(self) -> str:
        """Return s3://bucket/prefix."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def parse_address(text: str) -> Address:
    """Take s3://bucket/prefix apart.

    Raises:
        StorageError: it is no such address.
    """
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket:
        raise StorageError(f"expected s3://bucket/prefix; got {text!r}")
    if set(bucket) & set("@:?#"):
        raise StorageError(f"expected s3://bucket/prefix, without a user, a password or a query; got {text!r}; {CREDENTIALS}")
    prefix = prefix.strip("/")
    return Address(bucket, f"{prefix}/" if prefix else "")


def download_prefix(address: str, *, folder: Path) -> list[Path]:
    """Copy every object below the prefix into the folder, each whole or not at all, and return the files in the order of their names.

    Names that start with a dot are left out. A marker object ("prefix/name/") becomes a folder, so that an empty one is seen.

    Raises:
        StorageError: the store cannot be reached or refuses, nothing is there, or an object's name cannot be a file's.
    """
    place = parse_address(address)
    moved: set[str] = set()
    with _explained(place, moved=moved) as client:
        keys = [entry["Key"] for entry in _listing(client, place)]
        targets = {key: folder / name for key in keys if not _is_hidden(name := _relative(key, place=place))}
        if not any(not key.endswith("/") for key in targets):
            raise StorageError(f"{place} holds nothing at {_endpoint(client)}; check the bucket, the prefix and AWS_ENDPOINT_URL")
        files = {key: path for key, path in targets.items() if not key.endswith("/")}
        _make_folders([path for key, path in targets.items() if key.endswith("/")], files=files, place=place)
        # download_file writes beside the target, renames, and asks again for a body that broke off.
        _in_parallel(lambda key: client.download_file(place.bucket, key, str(files[key]), Config=_one_thread()), files, moved=moved)
    return sorted(files.values())


def download_file(address: str, *, folder: Path) -> Path:
    """Copy one object into the folder, and return its file.

    Raises:
        StorageError: the store cannot be reached or refuses, or there is no such object.
    """
    place = parse_address(address)
    key = place.prefix.rstrip("/")
    target = folder / _relative(key, place=Address(place.bucket, "")).rpartition("/")[2]
    with _explained(place) as client:
        if not any(entry["Key"] == key for entry in _listing(client, Address(place.bucket, key))):
            raise StorageError(f"{place} is not there at {_endpoint(client)}; check the address and AWS_ENDPOINT_URL")
        client.download_file(place.bucket, key, str(target), Config=_one_thread())
    return target


def fingerprint(address: str) -> str:
    """Return a digest of the names, sizes and ETags below the prefix: another one where an object was added, changed or removed.

    Raises:
        StorageError: the store cannot be reached or refuses.
    """
    place = parse_address(address)
    digest = hashlib.sha256()
    with _explained(place) as client:
        for entry in _listing(client, place):
            digest.update(f"{entry['Key']}\0{entry['Size']}\0{entry['ETag']}\n".encode())
    return digest.hexdigest()


class Objects:
    """Move single objects to and from one place, by one client; several threads may."""

    def __init__(self, address: str) -> None:
        """Take an address apart; nothing is asked yet.

        Raises:
            StorageError: it is no such address.
        """
        self.place = parse_address(address)
        self._client: Any = None
        self._lock = Lock()

    def get(self, name: str, file: BinaryIO) -> None:
        """Copy an object into an open file.

        Raises:
            StorageError: the store cannot be reached or refuses, or there is no such object.
        """
        with self._asked(name) as client:
            client.download_fileobj(self.place.bucket, self.place.prefix + name, file, Config=_one_thread())

    def put(self, name: str, file: BinaryIO) -> None:
        """Make an object of what a file holds from its beginning, whole or not at all.

        Raises:
            StorageError: the store cannot be reached or refuses.
        """
        with self._asked(name) as client:
            client.upload_fileobj(file, self.place.bucket, self.place.prefix + name, Config=_one_thread())

    @contextmanager
    def _asked(self, name: str) -> Iterator[Any]:
        with self._lock:
            if self._client is None:
                with _explained(self.place) as client:
                    self._client = client
        with _explained(Address(self.place.bucket, self.place.prefix + name), own=self._client) as client:
            yield client


def _listing(client: Any, place: Address) -> Iterator[dict[str, Any]]:
    """Yield what is below the prefix, in the order of the keys."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix, PaginationConfig={"PageSize": PAGE})
    for page in pages:
        yield from page.get("Contents", [])


def upload_folder(folder: Path, *, address: str) -> list[str]:
    """Copy every file below the folder to the address, and return the objects' names in order.

    Raises:
        StorageError: the folder is empty, or the store cannot be reached or refuses.
    """
    place = parse_address(address)
    files = {place.prefix + path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if not files:
        raise StorageError(f"{folder} holds no file to upload to {place}")
    moved: set[str] = set()
    with _explained(place, moved=moved) as client:
        _in_parallel(lambda key: client.upload_file(str(files[key]), place.bucket, key, Config=_one_thread()), files, moved=moved)
    return sorted(files)


def _relative(key: str, *, place: Address) -> str:
    """Return the key below the prefix, refusing one that would leave the folder that it is copied to."""
    name = key.removeprefix(place.prefix)
    parts = name.removesuffix("/").split("/")
    if name and (any(part in ("", ".", "..") for part in parts) or "\0" in name or "\\" in name):
        raise StorageError(f"s3://{place.bucket}/{key}: an object of this name cannot become a file; rename it")
    return name


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _make_folders(markers: Iterable[Path], *, files: dict[str, Path], place: Address) -> None:
    folders = {*markers, *(parent for path in files.values() for parent in path.parents)}
    for key, path in files.items():
        if path in folders:
            raise StorageError(f"s3://{place.bucket}/{key}: the store has both an object and a folder of this name; rename one")
    for folder in {*markers, *(path.parent for path in files.values())}:
        folder.mkdir(parents=True, exist_ok=True)


def _one_thread() -> Any:
    """Configure a transfer to use its own thread only: the pool below is the parallelism."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(use_threads=False, num_download_attempts=N_TRIES)


def _in_parallel(transfer: Callable[[str], object], keys: Iterable[str], *, moved: set[str]) -> None:
    """Run a transfer a key in a bounded pool, and add it to `moved`; the first failure cancels what has not begun."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        futures = {pool.submit(transfer, key): key for key in keys}
        try:
            for future in as_completed(futures):
                future.result()
                moved.add(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": N_TRIES}
    return boto3.Session().client(  # boto3's default session would keep the credentials that it saw first
        "s3",
        config=Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries=retries, max_pool_connections=N_THREADS),
    )


def _endpoint(client: Any) -> str:
    return str(client.meta.endpoint_url)


@contextmanager
def _explained(place: Address, *, moved: Collection[str] = (), own: Any = None) -> Iterator[Any]:
    """Yield an S3 client; whatever boto3 raises meanwhile becomes a StorageError in plain words, with a way out.

    A long wait is told, with the number of objects that are `moved` already; not that for one object of many, by a client of the caller's
    `own`: on threads of their own, such waits are of no interest.
    """
    from boto3.exceptions import Boto3Error, RetriesExceededError, S3UploadFailedError
    from botocore import exceptions as boto

    where = str(place)
    try:
        try:
            client = own or _client()
        except ValueError as error:  # botocore's word for an endpoint that is no URL
            raise StorageError(f"{place} cannot be read: {error}; mend AWS_ENDPOINT_URL, which reads like http://host:port") from None
        where = f"{place} at {_endpoint(client)}"
        limit = f"a request is given up after {READ_TIMEOUT:g} s without a byte, {N_TRIES} times"
        with waiting(where, limit=limit, so_far=lambda: f"{len(moved):,} objects are through") if own is None else nullcontext():
            yield client
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError):
        raise StorageError(f"{where} needs credentials and there are none, or only a part; {CREDENTIALS}") from None
    except boto.ProfileNotFound as error:
        raise StorageError(f"{where} cannot be read: {error}; mend AWS_PROFILE") from None
    except (boto.ConnectionError, boto.HTTPClientError, RetriesExceededError) as error:
        broken = f"a body broke off {N_TRIES} times: {getattr(error, 'last_exception', '')}"
        reason = " ".join((broken if isinstance(error, RetriesExceededError) else str(error)).split())
        raise StorageError(
            f"{where} cannot be reached ({reason}); check the network, and AWS_ENDPOINT_URL for a store that is not AWS's"
        ) from None
    except RecursionError:  # botocore asks the new place where the bucket is, which sends elsewhere, and so on
        raise StorageError(f"{where} refuses: {ELSEWHERE}") from None
    except (boto.ClientError, S3UploadFailedError) as error:
        raise StorageError(f"{where} refuses: {_refusal(error)}") from None
    except (boto.BotoCoreError, Boto3Error) as error:
        raise StorageError(f"{where} cannot be read or written: {error}") from None


def _refusal(error: Any) -> str:
    # An upload wraps the store's answer in an error of its own.
    answer = getattr(error, "response", None) or getattr(error.__context__, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", "")) or type(error).__name__
    return f"{code}: {WAY_OUT.get(code) or answer.get('Error', {}).get('Message') or error}"
