"""Name a search: the same settings on the same data are the same search, wherever and whenever it runs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from odn.config import Config
from odn.sanitize import redacted


def search_id(config: Config, data_sha256: Mapping[str, str]) -> str:
    """Return 16 hex digits that only an equal config on equal data shares."""
    content = config.to_json() + json.dumps(dict(data_sha256), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def search_name(config: Config) -> str:
    """Return what a person calls the search in a list of many."""
    return f"{config.data.name} {config.model.backbone} target {config.search.target:g}"


def flat_params(config: Config) -> dict[str, str]:
    """Return every setting as `section.name`, as MLflow shows params: strings, without secrets."""
    flat: dict[str, Any] = {}
    for section, value in config.model_dump(mode="json").items():
        flat |= {f"{section}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {section: value}
    return {name: redacted(item if isinstance(item, str) else json.dumps(item)) for name, item in flat.items()}
