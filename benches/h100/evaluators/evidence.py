"""What the stages share: a command under one evaluator, its figures, and what the profilers said and wrote."""

import collections
import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vllm"))
import rig as shared
from rig import Rig, Session, common

ROWS_KEPT = 3
SMALL_DATABASE = 2_000_000
LINES_KEPT = 60


class Bench:
    """Runs commands under evaluators, and keeps their sessions for comparison."""

    def __init__(self, stage: str) -> None:
        self.rig = Rig(f"evaluators_{stage}")
        self.out = self.rig.out
        self.rig.results.path = self.out / f"evaluators_{stage}.json"
        self.words = self.out / "evaluators_words"
        self.words.mkdir(exist_ok=True)
        self.text = self.out / f"evaluators_{stage}.txt"
        self.text.write_text("")
        self.folders: dict[str, Path] = {}

    def step(self, name: str, function) -> None:
        if self.rig.wanted(name):
            self.rig.results.step(name, function)

    def record(
        self,
        name: str,
        flavor: str,
        options: list[str],
        command: list[str],
        timeout: float,
        all_words: bool = False,
        **environment,
    ) -> dict:
        """The command under `colonel run`: its figures; `ok` is that it ended by itself with kernels."""
        sessions = self.rig.colonel.sessions_dir()
        options = ["--flavor", flavor, *(["--sim"] if shared.SIM else []), *options]
        ran = common.run(self.rig.colonel.command(sessions, options, command), timeout, **environment)
        if ran.code != 0:
            (self.words / f"{name}.stderr.txt").write_text(ran.err[-30_000:])
        if all_words:
            said = f"exit code {ran.code}\n-- stdout\n{ran.out[-3000:]}\n-- stderr\n{ran.err[-6000:]}"
            (self.words / f"{name}.said.txt").write_text(said)
        session = shared.only_session(sessions)
        self.folders[name] = session.folder
        manifest = session.manifest
        profiler = manifest.get("profiler") or {}
        ended, created = manifest.get("ended_ns"), manifest.get("created_ns")
        figures = {
            "ok": ran.code == 0 and session.count("kernels") > 0,
            **ran.figures(),
            "line": ran.line,
            "kernels": session.count("kernels"),
            "counters": session.count("kernel_counters"),
            "run_s": round((ended - created) / 1e9, 2) if ended else None,
            "collect_s": round((profiler.get("collect_ns") or 0) / 1e9, 2),
            "profiler": {key: profiler.get(key) for key in ("path", "release", "reports")},
            "facts": session.figures(),
            "by_name": by_name(session),
        }
        self.keep(name, session)
        return figures

    def keep(self, name: str, session: Session) -> None:
        """The profiler's own words and formats, cut to what a test needs."""
        for log in session.folder.glob("n*/log.txt"):
            lines = log.read_text(errors="replace").splitlines()
            (self.words / f"{name}.log.txt").write_text(
                "\n".join([*lines[:LINES_KEPT], "…", *lines[-LINES_KEPT:]]) + "\n"
            )
        profiler = (session.manifest.get("profiler") or {}).get("path")
        if profiler is None:
            return
        for report in session.folder.glob("ncu/*.ncu-rep"):
            command = [profiler, "--import", str(report), "--csv", "--page", "raw", "--print-units", "base"]
            command += ["--print-kernel-base", "mangled"]
            page = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            (self.words / f"{name}.raw.csv").write_text(
                "".join(page.stdout.splitlines(keepends=True)[:8]) + page.stderr
            )
        for report in session.folder.glob("nsys/*.nsys-rep"):
            database = self.rig.scratch / f"{name}.sqlite"
            command = [profiler, "export", "--type=sqlite", f"--output={database}", str(report)]
            said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
            (self.words / f"{name}.export.txt").write_text(said.stdout[-3000:] + said.stderr[-3000:])
            if database.exists():
                (self.words / f"{name}.schema.sql").write_text(schema(database))
                if database.stat().st_size < SMALL_DATABASE:
                    with contextlib.closing(sqlite3.connect(database)) as connection:
                        (self.words / f"{name}.dump.sql").write_text("\n".join(connection.iterdump()) + "\n")

    def compare(self, *names: str) -> dict:
        """`colonel compare` of two sessions, for people and in figures."""
        folders = [str(self.folders[name]) for name in names]
        compare = [str(self.rig.colonel.bin / "colonel"), "compare", *folders]
        shown = common.run([*compare, "--limit", "25"], 60, COLUMNS="150")
        with self.text.open("a") as file:
            file.write(f"$ colonel compare {' '.join(names)}\n{shown.out}{shown.err}\n\n")
        figures = common.run([*compare, "--json"], 60)
        line = common.json.loads(figures.out)
        both = [kernel for kernel in line["kernels"] if kernel["a"] and kernel["b"]]
        changes = sorted(kernel["mean_change"] for kernel in both if kernel["a"]["total_ns"] > 100_000)
        return {
            "ok": shown.code == 0,
            "kernels": [side["kernels"] for side in line["sessions"]],
            "equal_launches": line["equal_launches"],
            "only_one_has": [kernel["name"][:80] for kernel in line["kernels"] if kernel not in both][:10],
            "counts_differ": [
                [kernel["name"][:80], kernel["a"]["count"], kernel["b"]["count"]]
                for kernel in both
                if kernel["a"]["count"] != kernel["b"]["count"]
            ][:10],
            "median_change_of_mean": round(changes[len(changes) // 2], 4) if changes else None,
            "changes_of_mean": [round(change, 3) for change in changes[:3] + changes[-3:]],
        }


def by_name(session: Session, most: int = 12) -> dict:
    """Launches and their time, by short name."""
    frame = session.table("kernels", ["short_name", "start_ns", "end_ns"])
    counts, totals = collections.Counter(), collections.Counter()
    for name, start, end in frame.itertuples(index=False):
        counts[name] += 1
        totals[name] += end - start
    return {
        name: {"launches": counts[name], "total_us": round(total / 1e3, 1)} for name, total in totals.most_common(most)
    }


def schema(database: Path) -> str:
    """Tables as they were made, with how many rows they have and the first of them."""
    lines = []
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.text_factory = lambda text: text.decode(errors="replace")
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for table, sql in tables:
            (count,) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()
            lines.append(f"{sql}  -- {count} rows")
            if table.startswith(("ENUM_", "TARGET_INFO_SYSTEM_ENV", "ProcessStreams")):
                continue
            lines += [f"--   {row}"[:400] for row in connection.execute(f'SELECT * FROM "{table}" LIMIT {ROWS_KEPT}')]
    return "\n".join(lines) + "\n"
