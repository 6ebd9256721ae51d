"""Kill it, fill its disk, feed it broken files: how run_llama.py holds, in figures.

    python tests/campaign.py [--full] [--seed N] [NAME ...]

Prints one line for each check, with the numbers of cases and of their outcomes, and every
failure; the exit status is 1 if there is one. Without --full the numbers are small, as in CI.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import mutations  # noqa: E402
import reference  # noqa: E402
from classifier import load_classifier  # noqa: E402
from runs import Bench, Outcome, check_refusal, check_success, contents  # noqa: E402
from utils import read_torch_file  # noqa: E402

TRAINING = ("finetune", "lora")


class Tally:
    """What came out of the cases of a check."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.cases = 0

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """One case: a failed assertion is counted and does not end the check."""
        self.cases += 1
        try:
            yield
        except Exception as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error!s:.1500}")


def check_loadable(place: Path, inputs: Iterable[str] = ()) -> None:
    """Whatever checkpoint stands under a final name is whole; `inputs` may be anything."""
    for path in place.glob("*.pt"):
        if path.name in inputs:
            continue
        if path.name.endswith(".resume.pt"):
            read_torch_file(path)
        else:
            load_classifier(path)


def check_same(place: Path, expected: dict[str, bytes], but: str = "none") -> None:
    """These files, to the byte, and no others; of names that end in `but`, only that they exist."""
    found = contents(place)
    assert found.keys() == expected.keys(), f"files differ: {found.keys() ^ expected.keys()}"
    differing = [name for name in expected
                 if found[name] != expected[name] and not name.endswith(but)]
    assert not differing, f"not the same bytes: {differing}"


def uninterrupted(bench: Bench, argv: list[str], option: str) -> tuple[dict[str, bytes], float]:
    """What a run leaves in its folder when nothing happens to it, and its seconds."""
    place = bench.place("uninterrupted")
    outcome = bench.run(argv, place)
    check_success(outcome, option, {}, place)
    return contents(place), outcome.seconds


def resume_and_compare(
    bench: Bench, argv: list[str], option: str, place: Path, expected: dict[str, bytes]
) -> None:
    """--resume ends well and with the bytes of an uninterrupted run."""
    check_loadable(place)
    outcome = bench.run([*argv, "--resume"], place)
    check_success(outcome, option, contents(place), place)
    check_same(place, expected)


# ------------------------------------------------------------------------------- killed and resumed


def seconds_of_training(bench: Bench, argv: list[str]) -> float:
    """How long a run takes from the line that says it trains."""
    run = bench.start(argv, bench.place("timed"))
    run.read_line()
    started = time.monotonic()
    run.wait()
    return time.monotonic() - started


def kills(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """kill -9 at random moments, then --resume: the same bytes as without the kill."""
    for option in TRAINING:
        # One step an epoch, so that much of the time goes into writing.
        argv = bench.argv(option, epochs=15, batch_size=24)
        expected, _ = uninterrupted(bench, argv, option)
        seconds = seconds_of_training(bench, argv)
        for number in range(count):
            place = bench.place("killed")
            moment = rng.uniform(0, seconds)
            with tally.case(f"{option}, kill {number}, after {moment:.3f} s"):
                run = bench.start(argv, place)
                run.read_line()
                time.sleep(moment)
                run.signal(signal.SIGKILL)
                run.wait()
                names = [path.name for path in place.iterdir()]
                writing = any(name.endswith(".part") for name in names)
                trained = any(name.endswith(".resume.pt") for name in names)
                tally.outcomes["in a write" if writing else "between writes" if trained
                               else "in the first epoch or at the end"] += 1
                resume_and_compare(bench, argv, option, place, expected)
                tally.outcomes["identical"] += 1


def kill_points(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Killed right before each single fsync, rename and removal of a run, then --resume."""
    for option in TRAINING:
        argv = bench.argv(option, epochs=count, seed=1)  # whose best epoch is the second
        expected, _ = uninterrupted(bench, argv, option)
        for point in range(1, 1000):
            place = bench.place("killed")
            died = bench.run(argv, place, die_before=point).status == -signal.SIGKILL
            with tally.case(f"{option}, killed before step {point} on files"):
                resume_and_compare(bench, argv, option, place, expected)
                tally.outcomes["identical"] += 1
            if not died:
                break


def kills_in_writes(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Killed by the write that takes a file beyond a size, for all sizes, then --resume."""
    for option in TRAINING:
        argv = bench.argv(option)
        expected, _ = uninterrupted(bench, argv, option)
        first = interrupted_run(bench, argv)
        largest = max(len(content) for content in first.values())
        for number in range(count):
            limit, fresh = int(largest * (number + rng.random()) / count), number % 2
            place = bench.place("killed")
            with tally.case(f"{option}, killed when a file would exceed {limit} bytes"):
                for name, content in ({} if fresh else first).items():
                    (place / name).write_bytes(content)
                outcome = bench.run([*argv, *([] if fresh else ["--resume"])], place,
                                    file_limit=limit, deadly=True)
                assert outcome.status == -signal.SIGXFSZ, outcome
                resume_and_compare(bench, argv, option, place, expected)
                tally.outcomes["identical"] += 1


def interrupt(
    argv: list[str], place: Path, after_line: str, delay: float
) -> tuple[Outcome, float]:
    """Ctrl-C `delay` seconds after a line was printed; how that ended, and how fast."""
    with subprocess.Popen(
            [sys.executable, ROOT / "run_llama.py", *argv], cwd=place, start_new_session=True,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as run:
        while after_line and after_line not in run.stdout.readline():
            assert run.poll() is None, run.stderr.read()
        time.sleep(delay)
        sent = time.monotonic()
        run.send_signal(signal.SIGINT)
        stdout, stderr = run.communicate(timeout=30)
        return Outcome(run.returncode, stdout, stderr, 0), time.monotonic() - sent


def interrupts(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Ctrl-C ends a run within two seconds, with one line and status 130; --resume goes on."""
    slowest = 0.0
    for number in range(count):
        option = TRAINING[number % 2]
        argv = bench.argv(option, epochs=40)
        expected, seconds = uninterrupted(bench, argv, option)
        place = bench.place("interrupted")
        with tally.case(f"{option}, Ctrl-C {number}"):
            outcome, took = interrupt(argv, place, "epochs of", rng.uniform(0, seconds / 2))
            slowest = max(slowest, took)
            check_interrupted(outcome, took, "epochs are kept", "nothing was written")
            resume_and_compare(bench, argv, option, place, expected)
    long = bench.folder / "long.txt"
    long.write_text("".join(f"{n % 2} ||| {'a dull cat ' * 1500}\n" for n in range(24)))
    for name, line, delay in (("in a long backward pass", "epochs of", 6),
                              ("while importing", "", 0.4)):
        with tally.case(f"Ctrl-C {name}"):
            place = bench.place("interrupted")
            argv = bench.argv("finetune", train=long, batch_size=24)
            outcome, took = interrupt(argv, place, line, delay)
            slowest = max(slowest, took)
            check_interrupted(outcome, took, "nothing was written", "interrupted")
    tally.outcomes[f"slowest {slowest:.2f} s"] += 1


def check_interrupted(outcome: Outcome, took: float, *texts: str) -> None:
    assert outcome.status == 130 and len(outcome.lines) == 1, outcome
    assert any(text in outcome.lines[0] for text in texts), outcome
    busy = max(1, os.getloadavg()[0] / os.cpu_count())  # others may take most of the machine
    assert took < 2 * busy, f"{took:.1f} s on a machine {busy:.1f} times busy"


# ------------------------------------------------------------------------------ files of all kinds


def judge(outcome: Outcome, option: str, before: dict[str, bytes], place: Path) -> str:
    """Name a good end; AssertionError for any other."""
    if outcome.status == 0:
        check_success(outcome, option, before, place)
        return "correct"
    if outcome.status == 1:  # numbers that are too large to train with, or to keep in memory
        assert "training stopped" in outcome.stderr or "out of memory" in outcome.stderr, outcome
        check_loadable(place, inputs=["mutated.pt"])
        before = before | {n: c for n, c in contents(place).items() if n.endswith(".pt")}
        check_refusal(outcome, before, place, status=1)
        return "stopped"
    check_refusal(outcome, before, place)
    return "refused"


def mutated_data(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Mutated data files: refused in one line, or a correct run."""
    for number in range(count):
        which = rng.choice(["train", "dev", "test", "label-names"])
        option = "prompt" if which == "label-names" else rng.choice(["prompt", "finetune", "lora"])
        original = bench.names if which == "label-names" else bench.folder / f"{which}.txt"
        place = bench.place("mutated")
        how, content = mutations.mutated_data(rng, original.read_bytes(), which == "label-names")
        (place / "mutated").write_bytes(content)
        before = contents(place)
        with tally.case(f"data {number}: {which} for {option} by {how}"):
            outcome = bench.run(bench.argv(option, epochs=1, **{which: "mutated"}), place)
            tally.outcomes[judge(outcome, option, before, place)] += 1


def interrupted_run(bench: Bench, argv: list[str]) -> dict[str, bytes]:
    """The files of a run that was killed after its first epoch."""
    for point in range(1, 100):
        place = bench.place("interrupted")
        bench.run(argv, place, die_before=point)
        names = contents(place).keys()
        if any(name.endswith(".resume.pt") for name in names):
            return {n: c for n, c in contents(place).items() if not n.endswith((".part", ".lock"))}
    raise AssertionError("no such moment")


def mutated_checkpoints(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Mutated checkpoints: refused in one line, or a correct run. If only bytes were damaged, a
    correct run is one that does not notice: its results are those of the undamaged file.
    """
    targets = ["generate", "prompt", "finetune", "lora", ".resume.pt", ".best.pt"]
    expected, interrupted = {}, {}
    for option in targets[:4]:
        expected[option], _ = uninterrupted(bench, bench.argv(option), option)
    interrupted = {option: interrupted_run(bench, bench.argv(option)) for option in TRAINING}
    byte_level = {how.__name__ for how in mutations.BYTES}
    for number in range(count):
        target = rng.choice(targets)
        option = rng.choice(TRAINING) if target.startswith(".") else target
        place = bench.place("mutated")
        if target == option:
            mutated, original = place / "mutated.pt", bench.checkpoint.read_bytes()
            argv = bench.argv(option, **{"pretrained-model-path": "mutated.pt"})
        else:
            for name, content in interrupted[option].items():
                (place / name).write_bytes(content)
            mutated = next(place.glob("*" + target))
            argv, original = [*bench.argv(option), "--resume"], mutated.read_bytes()
        how, content = mutations.mutated_checkpoint(rng, original)
        mutated.write_bytes(content)
        before = contents(place)
        with tally.case(f"checkpoint {number}: {target} for {option} by {how}"):
            end = judge(bench.run(argv, place), option, before, place)
            tally.outcomes[end] += 1
            if end == "correct" and how in byte_level:
                # A best model may be damaged where nothing is read, and is then copied as it is.
                check_same(place, expected[option] | (
                    {"mutated.pt": content} if target == option else {}), but=".pt")
                if target != option:
                    check_loadable(place)


def command_lines(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Malformed command lines: refused in one line, or a correct run."""
    for number in range(count):
        option = rng.choice(["generate", "prompt", "finetune", "lora"])
        more = {"seed": 3, "hidden_dropout_prob": 0.1, "lora_rank": 2, "lora_alpha": 2,
                "max_sentence_len": 9, "dtype": "float32"}
        how, argv = mutations.mutated_command(rng, bench.argv(option, epochs=1, **more))
        place = bench.place("commands")
        with tally.case(f"command line {number}: {how}: {argv!s:.400}"):
            outcome = bench.run(argv, place)
            if outcome.status == 0:
                assert not outcome.lines, outcome
                hidden = [n for n in contents(place) if n.endswith((".part", ".lock"))]
                assert not hidden, hidden
                tally.outcomes["correct"] += 1
            else:
                tally.outcomes[judge(outcome, option, {}, place)] += 1


def hostile_files(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """A pickle bomb and a path-traversing zip, as checkpoint, best model and resume state."""
    interrupted = interrupted_run(bench, bench.argv("finetune"))
    for target in ("model", ".resume.pt", ".best.pt"):
        for kind in ("bomb", "traversal"):
            with tally.case(f"{kind} as {target}"):
                outer = bench.place("hostile")
                place = outer / "inner" / "run"
                place.mkdir(parents=True)
                for name, content in interrupted.items():
                    (place / name).write_bytes(content)
                evil = place / "evil.pt" if target == "model" else next(place.glob("*" + target))
                whole = bench.checkpoint.read_bytes() if target == "model" else evil.read_bytes()
                evil.write_bytes(mutations.pickle_bomb(whole, outer / "trace") if kind == "bomb"
                                 else mutations.traversing_zip(whole))
                before = contents(place)
                changed = {"pretrained-model-path": evil} if target == "model" else {"resume": True}
                outcome = bench.run(bench.argv("finetune", **changed), place)
                escaped = [p for p in outer.rglob("*") if p.name in ("trace", "escaped")]
                assert not escaped and not Path("/tmp/escaped").exists(), escaped
                if kind == "bomb":
                    check_refusal(outcome, before, place)
                tally.outcomes["refused" if outcome.status == 2 else "ignored"] += 1


# ------------------------------------------------------------------------------- writes that fail


def failing_writes(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """No file may grow beyond a limit, swept over all sizes: what was good stays."""
    for option in ("generate", "prompt", *TRAINING):
        argv = bench.argv(option)
        expected, _ = uninterrupted(bench, argv, option)
        before = {name: b"old\n" for name in expected if name.endswith(".txt")}
        if option in TRAINING:
            before |= interrupted_run(bench, argv)
            argv.append("--resume")
        ends = {len(c) for c in [*expected.values(), *before.values()]}
        steps = [max(ends) * n // count for n in range(count)]
        for limit in sorted({*ends, *(end - 1 for end in ends), *steps}):
            with tally.case(f"{option}, files up to {limit} bytes"):
                place = bench.place("limited")
                for name, content in before.items():
                    (place / name).write_bytes(content)
                outcome = bench.run(argv, place, file_limit=limit)
                check_loadable(place)
                for name, content in contents(place).items():
                    known = name.endswith(".pt") or content in (
                        before.get(name), expected.get(name))
                    assert known, f"{name} is neither the old nor the new file"
                if outcome.status == 0:
                    check_same(place, expected)
                else:
                    after = before | {n: c for n, c in contents(place).items()
                                      if n in before or n in expected}
                    check_refusal(outcome, after, place)
                tally.outcomes["correct" if outcome.status == 0 else "refused"] += 1


def places(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Missing and forbidden folders are refused at the start, in one line."""
    place = bench.place("places")
    sealed = bench.place("sealed")
    sealed.chmod(0o555)
    forbidden = sealed if os.getuid() else Path("/sys")  # where even root may not write
    for option in ("generate", "prompt", *TRAINING):
        ending = f"dev-{bench.argv(option)[-1].partition('test-')[2]}"
        name = "generated_sentence_low_temp_out" if option == "generate" else "dev_out"
        for folder in (place / "nowhere", forbidden):
            with tally.case(f"{option} into {folder}"):
                outcome = bench.run(bench.argv(option, **{name: folder / ending}), place)
                check_refusal(outcome, {}, place)
                assert str(folder) in outcome.stderr and "epoch" not in outcome.stdout, outcome
                tally.outcomes["refused"] += 1


# -------------------------------------------------------------------------- other runs, other files


def two_runs(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Two runs at a time in one folder: each as if alone, or the second refused at once."""
    for option in TRAINING:
        ending = f"{option.replace('tune', 'tuning')}-output.txt"
        commands = [bench.argv(option, epochs=12, seed=seed, dev_out=f"{seed}-dev-{ending}",
                               test_out=f"{seed}-test-{ending}") for seed in (1, 2)]
        alone = [uninterrupted(bench, argv, option)[0] for argv in commands]
        for number in range(count):
            with tally.case(f"{option}, two runs, {number}"):
                place = bench.place("shared")
                runs = [bench.start(argv, place) for argv in commands]
                for run in runs:
                    assert run.wait().status == 0
                shared = f"{option}-12-0.01.pt"
                found = contents(place)
                assert found.pop(shared) in (alone[0][shared], alone[1][shared]), "mixed models"
                wanted = {n: c for files in alone for n, c in files.items() if n != shared}
                assert found == wanted, found.keys() ^ wanted.keys()
                tally.outcomes["undisturbed"] += 1
            with tally.case(f"{option}, the same run twice, {number}"):
                place = bench.place("shared")
                first = bench.start(commands[0], place)
                first.read_line()
                second = bench.run(commands[0], place)
                assert second.status == 2 and len(second.lines) == 1, second
                assert "another run" in second.stderr and second.seconds < 2, second
                assert first.wait().status == 0
                check_same(place, alone[0])
                tally.outcomes["second refused"] += 1


def not_finite(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """A loss that is not finite stops the run, says when, and keeps the best model so far."""
    for option in TRAINING:
        for batch_size, kept in ((8, False), (24, True)):  # 24: one step an epoch, so one ends
            place = bench.place("diverging")
            with tally.case(f"{option}, batches of {batch_size}"):
                outcome = bench.run(
                    bench.argv(option, lr=1e30, batch_size=batch_size, epochs=4), place)
                assert outcome.status == 1 and len(outcome.lines) == 1, outcome
                assert "epoch" in outcome.stderr and "1e+30" in outcome.stderr, outcome
                check_loadable(place)
                models = list(place.glob(f"{option}-4-*.pt"))
                assert bool(models) == kept, models
                tally.outcomes["a model kept" if kept else "nothing to keep"] += 1


def stale_files(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Files of an earlier run with other options are neither used nor resumed."""
    other_data = bench.folder / "other.txt"
    other_data.write_text(bench.folder.joinpath("train.txt").read_text() + "1 ||| a fine day\n")
    for option in TRAINING:
        expected, _ = uninterrupted(bench, bench.argv(option), option)
        stale = interrupted_run(bench, bench.argv(option, seed=7))
        changes: dict[str, object] = {"seed": 8, "lr": 0.02, "train": other_data, "batch_size": 6}
        if option == "lora":
            changes["lora_rank"] = 2
        for name, value in changes.items():
            with tally.case(f"{option} --resume with another {name}"):
                place = bench.place("stale")
                for file, content in stale.items():
                    (place / file).write_bytes(content)
                argv = bench.argv(option, **({"seed": 7} | {name: value}), resume=True)
                outcome = bench.run(argv, place)
                check_refusal(outcome, stale, place)
                assert name in outcome.stderr, outcome
                tally.outcomes["refused by name"] += 1
        with tally.case(f"{option} afresh beside them"):
            place = bench.place("stale")
            for file, content in stale.items():
                (place / file).write_bytes(content)
            assert bench.run(bench.argv(option), place).status == 0
            check_same(place, expected)
            tally.outcomes["not used"] += 1


def sizes_of_epochs(bench: Bench, argv: list[str]) -> list[float]:
    """Memory of a run in MiB after each of its epochs."""
    run, sizes = bench.start(argv, bench.place("soak")), []
    while line := run.read_line():
        if line.startswith("epoch "):
            pages = Path(f"/proc/{run.process.pid}/statm").read_text().split()[1]
            sizes.append(int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    assert run.wait().status == 0
    return sizes


def soak(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """Many epochs over the embedded reviews: memory is flat over the second half of them.

    Before, the allocator and oneDNN's cache of kernels fill up. Epochs differ by 100 MiB, since the
    lengths of their batches do and freed memory stays in the process for a while; what is never
    freed lifts the least of them, so that this is compared between two quarters.
    """
    demo, shape = ROOT / "demo", bench.shape | {"vocab_size": 2048}  # the pieces of its tokenizer
    reference.save_checkpoint(
        bench.folder / "soak.pt", reference.seeded_weights(shape, seed=0), shape)
    changed = {"pretrained-model-path": bench.folder / "soak.pt", "epochs": count,
               "tokenizer": demo / "tokenizer.model", "batch_size": 40}
    for split in ("train", "dev", "test"):
        changed[split] = demo / f"reviews2-{split}.txt"
    with tally.case(f"{count} epochs"):
        sizes = sizes_of_epochs(bench, bench.argv("finetune", **changed))
        assert len(sizes) == count
        third, last = sizes[count // 2:count * 3 // 4], sizes[count * 3 // 4:]
        growth = min(last) - min(third)
        allowed = 16 if count >= 100 else 64  # the least of six epochs still varies by 40
        assert growth < allowed, f"{growth:.1f} MiB more in the last quarter than in the third"
        tally.outcomes[f"{max(sizes):.0f} MiB at most, growth in MiB from the third quarter to "
                       f"the last: {growth:.1f};"] = count


def short_soak(bench: Bench, tally: Tally, count: int, rng: random.Random) -> None:
    """The same on two dozen sentences, where batches hardly differ: a closer bound."""
    with tally.case(f"{count} epochs"):
        sizes = sizes_of_epochs(bench, bench.argv("finetune", epochs=count))
        assert len(sizes) == count
        settled = sizes[min(20, count // 2):]
        growth = max(settled) - settled[0]
        assert growth < 8, f"{growth:.1f} MiB more than after the first epochs"
        tally.outcomes[f"growth in MiB after epoch {count - len(settled)}: {growth:.1f};"] = count


# -------------------------------------------------------------------------------------------- main

Check = Callable[[Bench, Tally, int, random.Random], None]
CHECKS: dict[str, tuple[Check, int, int]] = {  # how many in CI, and in full
    "kills": (kills, 2, 20),  # for each of fine-tuning and LoRA
    "kill_points": (kill_points, 2, 3),  # epochs
    "kills_in_writes": (kills_in_writes, 4, 40),
    "interrupts": (interrupts, 2, 6),
    "mutated_data": (mutated_data, 60, 1000),
    "mutated_checkpoints": (mutated_checkpoints, 60, 1000),
    "command_lines": (command_lines, 40, 200),
    "hostile_files": (hostile_files, 1, 1),
    "failing_writes": (failing_writes, 3, 40),  # limits, besides those at the end of each file
    "places": (places, 1, 1),
    "two_runs": (two_runs, 1, 5),
    "not_finite": (not_finite, 1, 1),
    "stale_files": (stale_files, 1, 1),
    "soak": (soak, 24, 200),
    "short_soak": (short_soak, 15, 200),
}


def run_check(name: str, folder: Path, full: bool = False, seed: int = 0) -> Tally:
    """Run one check in an empty folder."""
    check, few, many = CHECKS[name]
    tally = Tally()
    check(Bench(folder), tally, many if full else few, random.Random(f"{name} {seed}"))
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="the long campaign: about ten minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CHECKS))
    args = parser.parse_args()
    if unknown := set(args.names) - CHECKS.keys():
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    failed = False
    print(f"{'check':<20} {'cases':>5} {'failed':>6} {'seconds':>7}  outcomes", flush=True)
    for name in args.names or CHECKS:
        folder = Path(tempfile.mkdtemp(prefix="campaign-"))
        started = time.monotonic()
        tally = run_check(name, folder, args.full, args.seed)
        shutil.rmtree(folder)
        outcomes = ", ".join(f"{what} {n}" for what, n in tally.outcomes.most_common())
        print(f"{name:<20} {tally.cases:>5} {len(tally.failures):>6} "
              f"{time.monotonic() - started:>7.1f}  {outcomes}", flush=True)
        for failure in tally.failures:
            print(f"    {failure}", flush=True)
        failed = failed or bool(tally.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
