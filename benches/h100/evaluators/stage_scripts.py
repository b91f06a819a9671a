"""NVIDIA's own report scripts on what `colonel export --format nsys-sqlite` wrote: do they agree with colonel?"""

import collections
import csv
import io
import sys
from pathlib import Path

from evidence import Bench, common, shared

REPORTS = ("cuda_gpu_kern_sum", "cuda_gpu_trace", "nvtx_gpu_proj_sum", "cuda_api_sum", "nvtx_sum")


def main() -> None:
    bench = Bench("scripts")
    script = str(bench.rig.root / "benches" / "h100" / "ranged.py")
    options = ["--gate", "profiler", "--trace", "api,nvtx"]
    bench.step(
        "recorded", lambda: bench.record("recorded", "generic", options, [sys.executable, script, "--record"], 120)
    )
    if "recorded" not in bench.folders:
        return
    session = shared.Session(bench.folders["recorded"])
    database = bench.rig.scratch / "recorded.sqlite"
    bench.step("exported", lambda: exported(bench, session, database))
    for report in REPORTS:
        bench.step(report, lambda report=report: reported(bench, session, database, report))


def exported(bench: Bench, session: shared.Session, database: Path) -> dict:
    colonel = str(bench.rig.colonel.bin / "colonel")
    ran = common.run([colonel, "export", str(session.folder), "--format", "nsys-sqlite", "-o", str(database)], 60)
    return {"ok": ran.code == 0, **ran.figures(), "bytes": database.stat().st_size if database.exists() else None}


def reported(bench: Bench, session: shared.Session, database: Path, report: str) -> dict:
    """What `nsys stats` makes of the export, and whether its kernels are colonel's."""
    nsys = newest_nsys()
    ran = common.run([nsys, "stats", "--report", report, "--format", "csv", "--output", "-", str(database)], 90)
    (bench.words / f"stats_{report}.txt").write_text("\n".join((ran.out + ran.err).splitlines()[:40]) + "\n")
    rows = table_in(ran.out)
    found = {"ok": ran.code == 0 and bool(rows), "nsys": nsys, "code": ran.code, "rows": len(rows)}
    if report == "cuda_gpu_kern_sum" and rows:
        theirs = {row["Name"]: (int(row["Instances"]), int(row["Total Time (ns)"])) for row in rows}
        found |= agreement(theirs, ours(session))
    if report == "cuda_gpu_trace" and rows:
        kernels = [row for row in rows if row.get("GrdX")]
        found |= {"kernels": len(kernels), "ok": len(kernels) == session.count("kernels")}
    return found


def ours(session: shared.Session) -> dict[str, tuple[int, int]]:
    totals: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for name, start, end in session.table("kernels", ["name", "start_ns", "end_ns"]).itertuples(index=False):
        totals[name][0] += 1
        totals[name][1] += end - start
    return {name: (count, total) for name, (count, total) in totals.items()}


def agreement(theirs: dict, ours: dict) -> dict:
    return {
        "ok": theirs == ours,
        "names": [len(theirs), len(ours)],
        "launches": [sum(count for count, _ in side.values()) for side in (theirs, ours)],
        "total_ns": [sum(total for _, total in side.values()) for side in (theirs, ours)],
        "differ": [
            [name[:80], theirs.get(name), ours.get(name)]
            for name in {*theirs, *ours}
            if theirs.get(name) != ours.get(name)
        ][:5],
    }


def table_in(output: str) -> list[dict[str, str]]:
    """The CSV, which starts after nsys's own lines."""
    lines = output.splitlines()
    heads = [index for index, line in enumerate(lines) if line.count(",") >= 4]
    return list(csv.DictReader(io.StringIO("\n".join(lines[heads[0] :])))) if heads else []


def newest_nsys() -> str:
    found = sorted(Path("/opt/nvidia").rglob("target-linux-x64/nsys"))
    if not found:
        raise RuntimeError("no nsys under /opt/nvidia")
    return str(found[-1])


if __name__ == "__main__":
    main()
