"""HolisticTraceAnalysis loads the Chrome export, and Perfetto's own definitions read the native one: `make test-tools`.

Apart from the other tests, since HolisticTraceAnalysis brings a gigabyte of plotting packages. COLONEL_BIN names the
program.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
from google.protobuf import unknown_fields
from google.protobuf.message import Message
from perfetto.protos.perfetto.trace import perfetto_trace_pb2

if TYPE_CHECKING:
    from hta.trace_analysis import TraceAnalysis

ROOT = Path(__file__).resolve().parents[3]
COLONEL = os.environ.get("COLONEL_BIN", str(ROOT / "target/debug/colonel"))
# HolisticTraceAnalysis cuts times to microseconds otherwise.
os.environ["HTA_DISABLE_NS_ROUNDING"] = "1"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decode loop with its CUDA calls, without which there is no telling why a GPU was idle."""
    folder = tmp_path_factory.mktemp("sessions")
    workload = ["colonel-sim", "decode", "--steps", "50", "--kernels", "40"]
    run = ["run", "--sim", "--trace", "api", "--sessions-dir", str(folder), "--json", str(folder / "run.json")]
    subprocess.run([COLONEL, *run, "--", *workload], check=True, capture_output=True)
    return Path(json.loads((folder / "run.json").read_text())["path"])


def kernels(session: Path) -> dict[str, tuple[int, int]]:
    asked = f"SELECT name, count(*), sum(end_ns - start_ns)::BIGINT FROM '{session}/kernels/**/*.parquet' GROUP BY 1"
    return {name: (count, ns) for name, count, ns in duckdb.sql(asked).fetchall()}


def export(session: Path, file: Path, form: str) -> Path:
    subprocess.run([COLONEL, "export", str(session), "--format", form, "-o", str(file)], check=True)
    return file


def analyzed(session: Path, folder: Path) -> TraceAnalysis:
    """The session as HTA sees it, whose totals of kernels are ours."""
    from hta.trace_analysis import TraceAnalysis

    export(session, folder / "rank0.json.gz", "chrome")
    analysis = TraceAnalysis(trace_dir=str(folder))
    _, by_name = analysis.get_gpu_kernel_breakdown(visualize=False, num_kernels=1000, duration_ratio=1.0)
    rows = [row for _, row in by_name.iterrows() if not row["name"].startswith(("Memcpy", "Memset"))]
    found = {row["name"]: round(row["sum (us)"] * 1000) for row in rows}
    assert found == {name: ns for name, (_, ns) in kernels(session).items()}
    return analysis


@pytest.mark.parametrize("recorded", sorted((ROOT / "demos/sessions").iterdir()), ids=lambda path: path.name)
def test_hta_gives_the_same_totals_of_an_h100(recorded: Path, tmp_path: Path) -> None:
    analyzed(recorded, tmp_path)


def test_hta_gives_the_same_totals(session: Path, tmp_path: Path) -> None:
    analysis = analyzed(session, tmp_path)
    temporal = analysis.get_temporal_breakdown(visualize=False).iloc[0]
    (span,) = duckdb.sql(
        f"SELECT max(end_ns) - min(start_ns) FROM (SELECT start_ns, end_ns FROM '{session}/kernels/**/*.parquet' "
        f"UNION ALL SELECT start_ns, end_ns FROM '{session}/memcpys/**/*.parquet' "
        f"UNION ALL SELECT start_ns, end_ns FROM '{session}/memsets/**/*.parquet')"
    ).fetchall()[0]
    assert round(temporal["kernel_time(us)"] * 1000) == span
    assert round(temporal["compute_time(us)"] * 1000) == sum(ns for _, ns in kernels(session).values())
    parts = ["idle_time(us)", "compute_time(us)", "non_compute_time(us)"]
    assert sum(temporal[parts]) == pytest.approx(temporal["kernel_time(us)"])

    idle, _ = analysis.get_idle_time_breakdown(visualize=False)
    assert set(idle["idle_category"]) == {"host_wait", "kernel_wait", "other"}
    assert sum(idle["idle_time"]) > 0
    assert len(analysis.get_cuda_kernel_launch_stats(visualize=False)[0]) > 0


def unknown(message: Message) -> list[int]:
    """Numbers of fields that Perfetto does not define."""
    found = [field.field_number for field in unknown_fields.UnknownFieldSet(message)]
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if isinstance(value, list) or hasattr(value, "add") else [value]:
                found += unknown(inner)
    return found


def test_perfetto_reads_the_native_trace(session: Path, tmp_path: Path) -> None:
    """Its trace processor is no package (the wheel `perfetto` downloads it when it is first used): the packets are put
    together here as it would."""
    trace = perfetto_trace_pb2.Trace()
    trace.ParseFromString(export(session, tmp_path / "trace", "perfetto").read_bytes())
    assert [number for packet in trace.packet for number in unknown(packet)] == []
    assert not any(packet.trusted_packet_sequence_id != 1 for packet in trace.packet)
    texts, tracks = {}, {}
    for packet in trace.packet:
        for text in packet.interned_data.debug_annotation_string_values:
            texts[text.iid] = text.str.decode()
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            assert not track.parent_uuid or track.parent_uuid in tracks, "a parent comes first"
            tracks[track.uuid] = track
    found: list[tuple[str, int, int]] = []
    stacks: dict[int, list] = defaultdict(list)
    flows: dict[int, list[str]] = defaultdict(list)
    for packet in sorted(trace.packet, key=lambda packet: packet.timestamp):
        event = packet.track_event
        if not packet.HasField("track_event"):
            continue
        for flow in [*event.flow_ids, *event.terminating_flow_ids]:
            flows[flow].append(tracks[event.track_uuid].name)
        if event.type == event.TYPE_SLICE_BEGIN:
            stacks[event.track_uuid].append(packet)
        elif event.type == event.TYPE_SLICE_END:
            begin = stacks[event.track_uuid].pop()
            if tracks[event.track_uuid].name.startswith("stream") and begin.track_event.category_iids[0] == 1:
                name = texts[begin.track_event.debug_annotations[0].string_value_iid]
                found.append((name, begin.timestamp, packet.timestamp))
    assert not any(stacks.values()), "every slice ends"
    rows = duckdb.sql(f"SELECT name, start_ns, end_ns FROM '{session}/kernels/**/*.parquet'").fetchall()
    assert sorted(found) == sorted(rows), "each kernel, to the nanosecond"
    arrows = [names for names in flows.values() if len(names) > 1]
    assert len(arrows) > 0
    assert all(names[0] == "CUDA calls" and names[-1].startswith("stream") for names in arrows)
