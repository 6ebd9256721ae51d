"""Runs are kept, continued and compared with what is published; the outcome can be handed in."""

import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import prepare_submit
import reference
import reproduce
import run_llama
from reproduce import Plan, Task, compare
from test_prepare_submit import NAME, PREDICTIONS, STORIES, lay_out_repository

ROOT = Path(__file__).resolve().parent.parent
TINY = {"vocab_size": 290, "dim": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1,
        "max_seq_len": 256, "multiple_of": 8}
NAMES = {"sst": ["awful", "bad", "average", "good", "excellent"], "cfimdb": ["bad", "good"]}
PUBLISHED = {"sst-lora": ((0.70, 0.03), (0.10, 0.02))}


def write_model(folder: Path, name: str, tokenizer: Path) -> None:
    """A model of seeded weights, and its tokenizer."""
    reference.save_checkpoint(folder / name, reference.seeded_weights(TINY, seed=0), TINY)
    shutil.copy(tokenizer, folder / "tokenizer.model")


def write_data(folder: Path, stems: dict[str, str], train: int = 20) -> None:
    """Ten sentences in dev and test, whose label is told by the last word."""
    folder.mkdir(exist_ok=True)
    for dataset, stem in stems.items():
        words = NAMES[dataset]
        for split, count in (("train", train), ("dev", 10), ("test", 10)):
            folder.joinpath(f"{stem}-{split}.txt").write_text("".join(
                f"{i % len(words)} ||| a {split} film no. {i} was {words[i % len(words)]}\n"
                for i in range(count)), encoding="utf-8")
        folder.joinpath(f"{stem}-label-mapping.json").write_text(json.dumps(words))


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_tokenizer) -> Path:
    """A working folder with stand-ins for the official files."""
    work = tmp_path / "work"
    work.mkdir()
    write_model(work, "stories42M.pt", tiny_tokenizer)
    write_data(work / "data", {"sst": "sst", "cfimdb": "cfimdb"})
    monkeypatch.chdir(work)
    return work


def options(command: list[str]) -> dict[str, str]:
    """The options of a command that have a value."""
    return {name: value for name, value in zip(command, command[1:]) if name.startswith("--")}


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """Puts quick stand-ins for the runs, and collects their commands.

    Of the ten dev sentences 5, 6 and 9 are predicted right with seed 1337, 1338 and 1339; of the
    test sentences one always is.
    """
    done = []

    def execute(command: list[str], folder: Path) -> None:
        done.append(command)
        given = options(command)
        if given["--option"] == "generate":
            for name in STORIES:
                folder.joinpath(name).write_text(run_llama.PROMPT + " clocks\n", encoding="utf-8")
        for split in ("dev", "test") if "--dev" in given else ():
            right = {"1337": 5, "1338": 6, "1339": 9}[given["--seed"]] if split == "dev" else 1
            lines = folder.joinpath(given[f"--{split}"]).read_text(encoding="utf-8").splitlines()
            classes = 5 if "sst" in given["--dev"] else 2
            text = ""
            for number, line in enumerate(lines):
                label, _, sentence = line.partition(" ||| ")
                label = int(label) if number < right else (int(label) + 1) % classes
                question = " Is this movie so or so? This movie is "
                text += f"{label} ||| {sentence}{question * (given['--option'] == 'prompt')}\n"
            folder.joinpath(given[f"--{split}_out"]).write_text(text, encoding="utf-8")

    monkeypatch.setattr(reproduce, "execute", execute)
    return done


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """Do the runs for real, but without a new process, which takes seconds, for each."""
    def execute(command: list[str], folder: Path) -> None:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            assert run_llama.main(command[2:]) == 0

    monkeypatch.setattr(reproduce, "execute", execute)


def run(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, list[str], list[str]]:
    """Exit status and the lines on standard output and error."""
    capsys.readouterr()
    try:
        status = reproduce.main(list(argv))
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def table(path: str | Path = "results.md") -> dict[tuple[str, str], list[str]]:
    """The cells of results.md by job and sentences."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in Path(path).read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return {(row[0], row[1]): row[2:] for row in rows if len(row) == 7}


# --------------------------------------------------------------------------------------- commands

def test_the_commands_are_those_of_the_assignment(folder, capsys, commands):
    assert run(capsys)[0] == 0
    seen = {}
    for command in commands:
        assert Path(command[0]) == Path(sys.executable) and command[1].endswith("run_llama.py")
        given = options(command[2:])
        dataset = Path(given.get("--train", "")).name.partition("-")[0]
        seen[given["--option"], dataset] = given
    assert len(seen) == len(commands) == 7
    for given in seen.values():
        assert given["--seed"] == "1337" and Path(given["--pretrained-model-path"]).name \
            == "stories42M.pt"
    for dataset, batch_size in (("sst", "80"), ("cfimdb", "10")):
        assert seen["prompt", dataset]["--batch_size"] == "10"
        for option in ("finetune", "lora"):
            given = seen[option, dataset]
            assert (given["--epochs"], given["--lr"], given["--batch_size"]) == (
                "5", "2e-5", batch_size)
        assert (given["--lora_rank"], given["--lora_alpha"]) == ("4", "1.0")


@pytest.mark.parametrize("words, count", [
    (["sst"], 3), (["lora"], 2), (["generate", "cfimdb-prompt"], 2), (["finetune", "sst"], 4)])
def test_tasks_are_chosen_by_name_job_or_data_set(words, count, folder, capsys, commands):
    assert run(capsys, "--tasks", *words)[0] == 0
    assert len(commands) == count


def test_only_what_draws_at_random_is_repeated_and_the_first_seed_is_first(
        folder, capsys, commands):
    run(capsys, "--seeds", "2")
    seeds = [(options(command)["--option"], options(command)["--seed"]) for command in commands]
    assert len(seeds) == 7 + 4
    assert {seed for _, seed in seeds[:7]} == {"1337"} and {seed for _, seed in seeds[7:]} \
        == {"1338"}
    assert {option for option, _ in seeds[7:]} == {"finetune", "lora"}


def test_progress_says_which_of_how_many_and_what_is_next(folder, capsys, commands):
    _, out, _ = run(capsys, "--tasks", "sst-prompt", "sst-lora")
    assert out[0] == "run 1 of 2: sst-prompt, seed 1337; next: sst-lora, seed 1337"
    assert out[1].startswith("    dev accuracy 0.5000, test accuracy 0.1000")


# ---------------------------------------------------------------------------------- what is kept

def test_what_is_done_is_not_done_again(folder, capsys, commands):
    run(capsys, "--seeds", "2", "--tasks", "lora")
    status, out, _ = run(capsys, "--seeds", "3", "--tasks", "lora")
    assert status == 0
    assert len(commands) == 6
    assert sum("done before" in line for line in out) == 4


def test_another_command_or_another_file_is_done_again(folder, capsys, commands, monkeypatch):
    run(capsys, "--tasks", "sst-lora")
    monkeypatch.setattr(reproduce, "OFFICIAL_PLAN", reproduce.OFFICIAL_PLAN._replace(
        tasks=reproduce.tasks("", "--lr 1e-4", {"sst": 80, "cfimdb": 10})))
    run(capsys, "--tasks", "sst-lora")
    assert len(commands) == 2
    with open(folder / "data" / "sst-train.txt", "a", encoding="utf-8") as file:
        file.write("1 ||| one more\n")
    run(capsys, "--tasks", "sst-lora")
    assert len(commands) == 3


def test_a_result_without_its_outputs_is_done_again(folder, capsys, commands):
    run(capsys, "--tasks", "sst-lora")
    folder.joinpath("reproduction/sst-lora-1337/sst-test-lora-output.txt").unlink()
    run(capsys, "--tasks", "sst-lora")
    assert len(commands) == 2


def test_the_outputs_of_seed_1337_are_left_where_a_submission_has_them(folder, capsys, commands):
    run(capsys, "--seeds", "2")
    for name in PREDICTIONS + STORIES:
        assert folder.joinpath(name).is_file()
    ours, first, second = (
        folder.joinpath(place, "sst-dev-lora-output.txt").read_text(encoding="utf-8")
        for place in ("", "reproduction/sst-lora-1337", "reproduction/sst-lora-1338"))
    assert ours == first != second


# --------------------------------------------------------------------------------------- results

def test_results_have_means_and_standard_deviations_of_the_written_outputs(
        folder, capsys, commands, monkeypatch):
    monkeypatch.setattr(reproduce, "PUBLISHED", reproduce.PUBLISHED | PUBLISHED)
    assert run(capsys, "--seeds", "3", "--tasks", "sst-lora")[0] == 0
    # dev: 0.5, 0.6 and 0.9; their mean is 2/3, and the sum of squares from it 0.0866… = 13/150,
    # so the standard deviation is the root of 13/300, 0.2082; (2/3 - 0.70) / 0.03 is -1.1.
    rows = table()
    assert rows["LoRA", "SST dev"] == ["3", "0.6667 (0.2082)", "0.700 (0.030)", "-1.1", "agrees"]
    assert rows["LoRA", "SST test"] == ["3", "0.1000 (0.0000)", "0.100 (0.020)", "+0.0", "agrees"]
    assert rows["fine-tuning", "CFIMDB dev"] == ["0", "not run", "0.833 (0.060)", "–", "–"]


def test_one_seed_has_no_standard_deviation(folder, capsys, commands):
    run(capsys, "--tasks", "cfimdb-finetune")
    # (0.1 - 0.473) / 0.198 is -1.88
    assert table()["fine-tuning", "CFIMDB test"] == ["1", "0.1000", "0.473 (0.198)", "-1.9",
                                                     "not comparable"]


@pytest.mark.parametrize("task, index, shares, expected", [
    (Task("prompt", "sst"), 0, [261 / 1101], ("0.2371 (0.000)", "–", "equal")),
    (Task("prompt", "sst"), 0, [262 / 1101], ("0.2371 (0.000)", "–", "differs")),
    (Task("prompt", "sst"), 1, [552 / 2210], ("0.2498 (0.000)", "–", "equal")),
    (Task("prompt", "cfimdb"), 0, [120 / 245], ("0.4898 (0.000)", "–", "equal")),
    (Task("prompt", "cfimdb"), 1, [53 / 488], ("0.1086 (0.000)", "–", "equal")),
    (Task("finetune", "sst"), 0, [0.46], ("0.411 (0.025)", "+2.0", "agrees")),
    (Task("finetune", "sst"), 0, [0.462], ("0.411 (0.025)", "+2.0", "differs")),
    (Task("lora", "sst"), 1, [0.2, 0.25], ("0.269 (0.020)", "-2.2", "differs")),
    (Task("lora", "cfimdb"), 1, [0.5], ("0.506 (0.239)", "-0.0", "not comparable"))])
def test_verdicts(task, index, shares, expected):
    assert compare(task, index, shares) == expected


# ---------------------------------------------------------------------------------------- errors

def test_all_that_is_missing_is_named_before_any_work(folder, capsys, commands):
    folder.joinpath("stories42M.pt").unlink()
    folder.joinpath("data", "sst-dev.txt").unlink()
    status, _, err = run(capsys)
    assert status == 2 and not commands and not folder.joinpath("reproduction").exists()
    assert err == ["reproduce.py: missing: stories42M.pt, data/sst-dev.txt; `bash setup.sh` "
                   "fetches them, and --demo does without"]


def test_data_that_no_task_needs_may_be_missing(folder, capsys, commands):
    shutil.rmtree(folder / "data")
    assert run(capsys, "--tasks", "generate")[0] == 0


@pytest.mark.parametrize("argv", [["--seeds", "0"], ["--tasks", "story"], ["--demos"]])
def test_a_usage_error_is_one_line_and_status_2(argv, folder, capsys, commands):
    status, _, err = run(capsys, *argv)
    assert (status, len(err), commands) == (2, 1, [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_before_any_work(folder, capsys, commands):
    status, _, err = run(capsys, "--use_gpu")
    assert status == 2 and len(err) == 1 and "no CUDA device" in err[0] and not commands


def test_a_run_that_fails_is_reported_with_its_message_and_leaves_no_result(folder, capsys):
    folder.joinpath("stories42M.pt").write_bytes(b"damaged")
    status, _, err = run(capsys, "--tasks", "generate")
    assert status == 1 and len(err) == 1
    assert "generate-1337 failed with exit status 2: run_llama.py: " in err[0]
    assert "reproduction/generate-1337/log.txt" in err[0]
    assert not list(folder.rglob("result.json"))


def test_outputs_that_are_not_of_the_data_are_no_result(folder, capsys, commands, monkeypatch):
    honest = reproduce.execute

    def cut(command: list[str], folder: Path) -> None:
        honest(command, folder)
        path = folder / "sst-test-lora-output.txt"
        path.write_text(path.read_text(encoding="utf-8").partition("\n")[0], encoding="utf-8")

    monkeypatch.setattr(reproduce, "execute", cut)
    status, _, err = run(capsys, "--tasks", "sst-lora")
    assert status == 1 and "1 lines, but 10 in the data" in err[0]
    assert not list(folder.rglob("result.json"))


# ------------------------------------------------------------------------------- the real thing

PROGRAM = """
import sys, reproduce
reproduce.OFFICIAL_PLAN = reproduce.OFFICIAL_PLAN._replace(
    tasks=reproduce.tasks("--epochs 9 --lr 1e-3", "", {"sst": 8}))
sys.exit(reproduce.main(["--tasks", "generate", "sst-finetune"]))
"""


def test_it_can_be_stopped_and_goes_on_to_the_same_result(folder, tmp_path, monkeypatch, capsys,
                                                          in_this_process):
    write_data(folder / "data", {"sst": "sst"}, train=150)  # so that an epoch takes a while
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # The processes of pytest-xdist ignore this signal, which their children would inherit.
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(
                              signal.SIGINT, signal.SIG_DFL)) as process:
        for line in process.stdout:
            if line.strip().startswith("epoch 2/9"):
                process.send_signal(signal.SIGINT)
                break
        rest, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip() == ("reproduce.py: interrupted; what is done is kept, and the same "
                             "command goes on from there")
    done = folder.joinpath("reproduction/generate-1337/result.json").stat().st_mtime_ns
    assert not folder.joinpath("reproduction/sst-finetune-1337/result.json").exists()

    again = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert folder.joinpath("reproduction/generate-1337/result.json").stat().st_mtime_ns == done
    log = folder.joinpath("reproduction/sst-finetune-1337/log.txt").read_text(encoding="utf-8")
    assert log.count("Resuming after epoch") == 1 and log.count("\nepoch 2/9") == 1

    plan = Plan(Path(), tmp_path / "straight", Path("stories42M.pt"), reproduce.tasks(
        "--epochs 9 --lr 1e-3", "", {"sst": 8}), demo=False)
    reproduce.perform(plan, plan.tasks[2], 1337, use_gpu=False)
    name = "sst-test-finetuning-output.txt"
    assert folder.joinpath(name).read_bytes() == plan.work.joinpath(
        "sst-finetune-1337", name).read_bytes()


@pytest.fixture
def demo(tmp_path, monkeypatch, tiny_tokenizer) -> Path:
    """A repository with a demo/ that is smaller still, and one epoch of training."""
    repository = tmp_path / "repository"
    lay_out_repository(repository)
    write_data(repository / "demo", {"sst": "reviews5", "cfimdb": "reviews2"})
    write_model(repository / "demo", "stories.pt", tiny_tokenizer)
    ids = torch.randint(TINY["vocab_size"], (2, 8), generator=torch.manual_seed(0))
    logits, hidden = reference.forward(reference.seeded_weights(TINY, seed=0), TINY, ids)
    torch.save([{"token_ids": ids, "logits": torch.tensor(logits[:, -1:]).float(),
                 "hidden_states": torch.tensor(hidden).float()}],
               repository / "demo/sanity_check.data")
    for module in (reproduce, prepare_submit):
        monkeypatch.setattr(module, "HERE", repository)
    monkeypatch.setattr(reproduce, "DEMO_PLAN", reproduce.DEMO_PLAN._replace(
        model=repository / "demo/stories.pt", tasks=reproduce.tasks(
            "--epochs 1", "--epochs 1", {"sst": 8, "cfimdb": 8})))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def test_a_demo_can_be_packed_and_runs_elsewhere(demo, capsys, in_this_process, tmp_path):
    status, out, err = run(capsys, "--demo")
    assert (status, err) == (0, [])
    assert "--from reproduction/demo" in out[-1]
    home = demo / "reproduction" / "demo"
    assert not list(demo.glob("*.*"))
    results = home.joinpath("results.md").read_text(encoding="utf-8")
    assert "published figures do not apply" in results and "0.411" not in results
    assert table(home / "results.md")["LoRA", "reviews5 dev"][2:] == ["–", "–", "–"]

    assert prepare_submit.main([NAME, "--from", str(home)]) == 0
    elsewhere = tmp_path / "elsewhere"
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        zipped.extractall(elsewhere)
    submission = elsewhere / NAME
    told = submission.joinpath(STORIES[1]).read_bytes()
    submission.joinpath(STORIES[1]).unlink()
    shutil.copy(prepare_submit.HERE / "demo/stories.pt", submission / "stories42M.pt")
    shutil.copy(prepare_submit.HERE / "demo/tokenizer.model", submission)
    for command in (["run_llama.py", "--option", "generate"], ["sanity_check.py"]):
        ran = subprocess.run([sys.executable, *command], cwd=submission, capture_output=True,
                             text=True)
        assert ran.returncode == 0, ran.stderr
    assert "Passed" in ran.stdout
    assert submission.joinpath(STORIES[1]).read_bytes() == told


def test_a_demo_without_its_files_says_so(demo, capsys, commands):
    prepare_submit.HERE.joinpath("demo/reviews2-test.txt").unlink()
    status, _, err = run(capsys, "--demo")
    assert status == 2 and not commands
    assert err == ["reproduce.py: missing: reproduction/demo/data/cfimdb-test.txt; the repository "
                   "has them: get it again"]
