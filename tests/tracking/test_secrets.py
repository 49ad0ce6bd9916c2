"""No secret of the environment is said or written, whether a command ends well or not."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from odn.cli import main
from odn.config import make_config
from odn.errors import ConfigError
from odn.tracking.identity import flat_params
from tracking.planted import SECRETS, files_with_secrets, secrets_in

PASSWORD = "hunter-address"
URIS = [
    f"http://me:{PASSWORD}@127.0.0.1:9/?token=hunter-query",
    f"http://me:{PASSWORD}@h:99999",
    f"http://me:{PASSWORD}@[::1",
    f"postgresql://me:{PASSWORD}@127.0.0.1:9/mlflow?sslpassword=hunter-query",
    f"foo://me:{PASSWORD}@host",
    f"sqlite:///mlflow.db?key={PASSWORD}",
]


def planted(made: Any, monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    """Put secrets into the environment, and the settings of a search into its folder."""
    (made.root / "params.yaml").write_text(made.config.to_json())
    for name, value in {**SECRETS, **others}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.filterwarnings("ignore:Query string argument:sqlalchemy.exc.SAWarning")  # it names the key, not its value
@pytest.mark.parametrize("uri", URIS)
def test_tracking_tells_no_secret(
    store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], uri: str
) -> None:
    """Neither a replay that is refused nor one that goes through."""
    planted(make_search(store), monkeypatch, MLFLOW_TRACKING_URI=uri)
    code = main(["track", "--replay"])
    out, err = capfd.readouterr()
    assert (code, bool(out), err.count("\n")) == ((0, True, 0) if uri.startswith("sqlite") else (2, False, 1))
    assert secrets_in(out + err) == []
    assert files_with_secrets(store) == {}


@pytest.mark.parametrize("bucket", ["holds-images", "is-not-there"])
def test_fetching_from_a_bucket_tells_no_secret(
    s3: Any, s3_server: str, store: Path, settings: dict[str, Any], make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], bucket: str,
) -> None:  # fmt: skip
    """The password of the endpoint is in its address, and in no file that is fetched and no line that is said."""
    made = make_search(store)
    data = {**settings["data"], "source": "s3", "root": f"s3://{bucket}/x", "image_size": 8}
    made = type(made)(store, make_config({**settings, "data": data}), made.manifest)
    planted(made, monkeypatch, AWS_ENDPOINT_URL=s3_server.replace("://", "://minio:hunter-endpoint@"))
    if bucket == "holds-images":
        s3.create_bucket(Bucket=bucket)
        Image.new("L", (8, 8)).save(image := BytesIO(), "PNG")
        for key in ("x/cat/1.png", "x/dog/1.png"):
            s3.put_object(Bucket=bucket, Key=key, Body=image.getvalue())
    code = main(["fetch"])
    out, err = capfd.readouterr()
    assert code == (0 if bucket == "holds-images" else 2), err
    assert secrets_in(out + err) == []
    assert files_with_secrets(store) == {}


def test_a_password_in_the_root_is_refused_and_in_a_param_hidden(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow shows settings as params; what is refused is not shown either."""
    data = {**settings["data"], "source": "s3", "image_size": 8}
    for root in (f"s3://me:{PASSWORD}@bucket/x", f"s3://me:{PASSWORD}/2@bucket"):
        with pytest.raises(ConfigError, match="holds no user and password") as caught:
            make_config({**settings, "data": {**data, "root": root}})
        assert secrets_in(str(caught.value)) == []
    monkeypatch.setenv("MY_TOKEN", "hunter-token")
    elsewhere = {**settings["data"], "source": "folder", "root": f"https://me:{PASSWORD}@host/hunter-token"}
    assert flat_params(make_config({**settings, "data": elsewhere}))["data.root"] == "https://***@host/***"
