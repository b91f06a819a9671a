"""What the tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import Run, environment, record


@pytest.fixture
def colonel_run(tmp_path: Path) -> Callable[..., Run]:
    """Runs Python text under `colonel run --sim`; keywords are variables of its environment."""

    def run(script: str, *options: str, check: bool = True, **variables: str | None) -> Run:
        done = record(tmp_path, script, *options, variables=environment(**variables))
        assert not check or done.code == 0, done.stderr
        return done

    return run
