"""An exploration that is killed twice, and loses a worker, beside one that nothing disturbs: the records must be the same but for times.

    python benchmarks/explore_resume.py --points 10000

The bundled model on short texts; most points differ in clock and external memory alone, so that 10,000 take minutes. Also says the
largest memory of the driver.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACE = """
objectives = ["ms", "energy_uj", "area_mm2"]
[space]
source_len = 5
new_tokens = 1
cols = [1, 2]
rows = [8, 16]
latency = [20, 40, 80]
dram = ["lpddr4", "hbm2", "ddr3"]
clock_mhz = { low = 100, high = %d, step = 1 }
"""


def command(folder: Path, out: str, workers: int) -> list[str]:
    words = ["explore", str(folder / "space.toml"), "--out", str(folder / out), "--workers", str(workers)]
    program = "import sys; from ternbin.cli import main; sys.exit(main())"
    return [sys.executable, "-c", program, *words, "--no-sensitivity"]


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(folder: Path, workers: int, lines: int, *, worker: bool = False) -> None:
    """Runs until the file has so many lines, then kills the driver, or first one of its workers."""
    records = folder / "killed" / "records.jsonl"
    with subprocess.Popen(command(folder, "killed", workers), stdout=subprocess.DEVNULL, start_new_session=True) as run:
        while count(records) < lines:
            time.sleep(0.05)
            if run.poll() is not None:
                raise RuntimeError("the run must still go on when it is to be killed")
        if worker:
            os.kill(a_worker(run.pid), signal.SIGKILL)
            run.wait()
        else:
            os.killpg(run.pid, signal.SIGKILL)
    print(
        f"killed {'a worker; the run went on to' if worker else 'the driver at'} {count(records):,} lines", flush=True
    )


def a_worker(driver: int) -> int:
    """The process of a worker: the newest descendant of the driver."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    parents = dict(zip(map(int, listed[::2]), map(int, listed[1::2]), strict=True))

    def under(pid: int) -> bool:
        return pid == driver or (pid in parents and under(parents[pid]))

    leaves = [pid for pid in parents if under(pid) and pid != driver and pid not in parents.values()]
    return max(leaves)


def without_times(path: Path) -> list[dict]:
    header, *records = (json.loads(line) for line in path.read_bytes().splitlines())
    return [header, *sorted(({**record, "took": 0} for record in records), key=lambda record: record["id"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    clocks = -(-args.points // 36)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "space.toml").write_text(SPACE % (99 + clocks), encoding="utf-8")
        begun = time.perf_counter()
        with subprocess.Popen(command(folder, "whole", args.workers), stdout=subprocess.DEVNULL) as run:
            _, status, usage = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
        total = count(folder / "whole" / "records.jsonl") - 1
        spent = time.perf_counter() - begun
        if run.returncode:
            sys.exit(f"the undisturbed run must end well, not with {run.returncode}")
        print(f"undisturbed: {total:,} points in {spent:.0f} s, driver {usage.ru_maxrss / 1e3:,.0f} MB", flush=True)
        killed(folder, args.workers, total // 4)
        killed(folder, args.workers, total // 2)
        killed(folder, args.workers, 3 * total // 4, worker=True)
        same = without_times(folder / "whole" / "records.jsonl") == without_times(folder / "killed" / "records.jsonl")
        print(f"the same records but for times: {'yes' if same else 'NO'}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
