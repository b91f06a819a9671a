"""`Session.speed_of_light`: what part of the GPU's peaks each kernel reaches, as `colonel show --counters` has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colonel.program import ask

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

OF_KERNEL = ("name", "short_name", "count", "total_ns", "share", "alone")


@dataclass(frozen=True)
class SpeedOfLight:
    """Figures of hardware counters by kernel and layer; docs/cli.md says what each means."""

    figures: Mapping[str, Any]
    """All of them, as `colonel show --counters --json` prints them."""

    @property
    def devices(self) -> list[dict[str, Any]]:
        """GPUs that were sampled, each with `kernels` and `layers`; none without samples and kernels."""
        devices: list[dict[str, Any]] = self.figures["speed_of_light"]
        return devices

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each kernel and metric; `value`, `low` and `high` are None where `trust` says why."""
        return [
            {"pid": device["pid"], "device_id": device["device_id"]}
            | {name: kernel[name] for name in OF_KERNEL}
            | {"bound": (kernel["roofline"] or {}).get("bound")}
            | figure
            for device in self.devices
            for kernel in device["kernels"]
            for figure in kernel["figures"]
        ]

    def table(self) -> pa.Table:
        """The rows as an Arrow table; `.to_pandas()` and `polars.from_arrow` take it on."""
        import pyarrow as pa

        return pa.Table.from_pylist(self.rows)

    def __repr__(self) -> str:
        kernels = sum(len(device["kernels"]) for device in self.devices)
        return f"colonel.SpeedOfLight({self.figures['id']}: {kernels} kernels on {len(self.devices)} devices)"


def speed_of_light(session: Path, window: int | str | None) -> SpeedOfLight:
    """The figures of the session in this folder.

    Raises:
        ColonelError: the program is missing, or says why it can't.
    """
    words = [] if window is None else [f"--window={window}"]
    return SpeedOfLight(ask("show", str(session), "--counters", *words))
