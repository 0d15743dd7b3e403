"""Data sets on the Hub -> raw rows, and their splits under our names.

A row's number is its place (from 1) in the Hub's split.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from honing.data.reading.formats import Found, counted
from honing.data.reading.names import listed, shown
from honing.data.reading.source import SPLIT_NAMES, SPLITS
from honing.errors import UserError
from honing.hub import use_cache_if_unreachable


def open_hub(source: str) -> dict[str, tuple[str, Found]]:
    """(label, what was found) for each split of a Hub data set; "all" where it has only one."""
    name, _, config = source.partition(":")
    use_cache_if_unreachable()
    import datasets  # 2 s, for those who read from the Hub

    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(name, config or None)
        return {
            split: (f"{name}/{hub}", _open_split(source, loaded[hub]))
            for hub, split in _hub_splits(source, list(loaded)).items()
        }
    except UserError:
        raise
    except Exception as error:  # whatever its dozen libraries raise, the user sees one line
        raise _hub_failure(source, error) from error


def _open_split(source: str, split: Any) -> Found:
    return Found("a Hub data set", counted(_split_rows(source, split)), tuple(split.column_names))


def _split_rows(source: str, split: Any) -> Iterator[object]:
    try:
        # Undecoded: images stay bytes.
        for batch in split.with_format("arrow").iter(batch_size=1000):
            yield from batch.to_pylist()
    except Exception as error:
        raise _hub_failure(source, error) from error


def _hub_splits(source: str, found: list[str]) -> dict[str, str]:
    """The Hub's split names -> ours."""
    if len(found) == 1:
        return {found[0]: "all"}
    ours = {hub: SPLIT_NAMES[hub.lower()] for hub in found if hub.lower() in SPLIT_NAMES}
    if "train" not in ours.values():
        raise UserError(
            f"data.source: {shown(source, 100)} has no train split (found: {listed(found)}); "
            "save the one you mean as a file and give that"
        )
    first = {split: hub for hub, split in reversed(ours.items())}
    if len(first) == 1:
        return {first["train"]: "all"}
    return {first[split]: split for split in SPLITS if split in first}


def _hub_failure(source: str, error: Exception) -> UserError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    where = f"data.source: {shown(source, 100)}"
    instead = "give a file (JSON, JSONL, CSV, Parquet), or `sample`"
    if kinds & {"OfflineModeIsEnabled", "ConnectionError", "ConnectTimeout", "ConnectError"}:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        return UserError(
            f"{where}: no such file here, and the Hub cannot be reached{offline}; "
            f"with a network it would be fetched, without one {instead}"
        )
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError", "GatedRepoError"}:
        return UserError(
            f"{where}: no such file here, and no such data set on the Hub that is open to you; "
            f"check its name, log in with `hf auth login` if it is private, or {instead}"
        )
    return UserError(f"{where}: the Hub data set cannot be read ({shown(error, 160)}); {instead}")
