"""Runs are kept, resumed and compared with what is published; the outcome can be handed in."""

import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest

import prepare_submit
import reproduce
import run_llama
import test_prepare_submit
from prepare_submit import CLASSES
from runs import ROOT, STORIES, TRAINING
from test_prepare_submit import DATA, NAME, PREDICTIONS, SUBMISSION, lines, predictions, write

run = partial(test_prepare_submit.run, main=reproduce.main)
RIGHT = {1337: 10, 1338: 12, 1339: 18}  # of 20 on dev, by seed; on test: 2


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Stand-ins for the official files; what only run_llama.py reads is empty."""
    mappings = [f"data/{dataset}-label-mapping.json" for dataset in CLASSES]
    work = write(tmp_path / "work", DATA | dict.fromkeys(
        ["stories42M.pt", "tokenizer.model", *mappings], ""))
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def commands(monkeypatch) -> list[Namespace]:
    """Replace runs by quick stand-ins, and collect the options of their commands."""
    done = []

    def execute(run, command) -> None:
        assert Path(command[0]) == Path(sys.executable) and command[1].endswith("run_llama.py")
        args = run_llama.get_args(command[2:])
        done.append(args)
        write(run.folder, {"model.pt": ""} | {
            name: SUBMISSION[name] if name in STORIES
            else predictions(name, RIGHT[args.seed] if "-dev-" in name else 2)
            for name in run.outputs.values()})

    monkeypatch.setattr(reproduce, "execute", execute)
    return done


def results(folder: Path) -> str:
    return (folder / "results.md").read_text(encoding="utf-8")


def test_the_commands_are_those_of_the_assignment(folder, capsys, commands):
    status, out, _ = run(capsys)
    assert status == 0 and out[:4] == ["run 1 of 7: generate-1337", "run 2 of 7: sst-prompt-1337",
                                       "    dev accuracy 0.5000", "    test accuracy 0.1000"]
    assert [(args.option, Path(args.train).name, args.batch_size) for args in commands[1:]] == [
        (option, f"{dataset}-train.txt", 10 if option == "prompt" else batch_size)
        for option in ("prompt", "finetune", "lora")
        for dataset, batch_size in (("sst", 80), ("cfimdb", 10))]
    for args in commands:
        assert (args.seed, Path(args.pretrained_model_path).name) == (1337, "stories42M.pt")
        if args.option in TRAINING:
            assert (args.epochs, args.lr, args.resume) == (5, 2e-5, True)
            assert (args.lora_rank, args.lora_alpha) == (4, 1.0)
    assert all((folder / name).is_file() for name in PREDICTIONS + STORIES)
    for words, count in (("sst", 3), ("generate cfimdb-prompt", 2), ("finetune lora", 4)):
        assert f"run 1 of {count}: " in run(capsys, "--tasks", *words.split())[1][0]


def test_only_what_draws_at_random_is_repeated_and_what_is_done_is_kept(folder, capsys, commands):
    run(capsys, "--seeds", "2")
    assert [args.seed for args in commands] == [1337] * 7 + [1338] * 4
    assert {args.option for args in commands[7:]} == {*TRAINING}
    _, out, _ = run(capsys, "--seeds", "3", "--tasks", "lora")
    assert len(commands) == 13 and sum("done before" in line for line in out) == 4
    top, first, second = ((folder / place / "sst-dev-lora-output.txt").read_bytes() for place in (
        "", "reproduction/sst-lora-1337", "reproduction/sst-lora-1338"))
    assert top == first != second
    assert {path.parent.name[-4:] for path in folder.rglob("model.pt")} == {"1337"}
    place = folder / "reproduction/sst-lora-1337"
    shutil.copytree(place, f"{place}-backup")  # is ignored
    (place / "sst-dev-lora-output.txt").unlink()
    assert run(capsys, "--tasks", "sst-lora")[0] == 0 and len(commands) == 14
    assert "| LoRA | SST dev | 3 | " in results(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_epochs_are_shown_and_a_signal_ends_the_running_command_too(folder, capsys, monkeypatch):
    monkeypatch.setattr(reproduce, "HERE", write(folder, {"run_llama.py": """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path("ended").touch()))
print("load model\\nLoRA epoch 0: train loss :: 1.653, 12 s\\nnext", flush=True)
while "next" not in pathlib.Path("log.txt").read_text("utf-8"):
    time.sleep(0.01)
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(30)
"""}))
    status, out, _ = run(capsys, "--tasks", "sst-lora")
    assert (status, out) == (143, ["run 1 of 1: sst-lora-1337",
                                   "    LoRA epoch 0: train loss :: 1.653, 12 s"])
    assert (folder / "reproduction/sst-lora-1337/ended").exists()


def test_results_have_means_and_standard_deviations_of_the_written_outputs(
        folder, capsys, commands, monkeypatch):
    monkeypatch.setitem(reproduce.PUBLISHED, "sst-lora", ((0.70, 0.03), (0.10, 0.02)))
    run(capsys, "--seeds", "3", "--tasks", "sst-lora")
    run(capsys, "--tasks", "cfimdb-finetune")
    # dev: 0.5, 0.6 and 0.9; their mean is 2/3, and the sum of squares from it 0.0866… = 13/150,
    # so the standard deviation is the root of 13/300, 0.2082; (2/3 - 0.70) / 0.03 is -1.1.
    # One seed has no standard deviation; (0.1 - 0.473) / 0.198 is -1.88.
    for row in ("| LoRA | SST dev | 3 | 0.6667 (0.2082) | 0.700 (0.030) | -1.1 | agrees |",
                "| LoRA | SST test | 3 | 0.1000 (0.0000) | 0.100 (0.020) | +0.0 | agrees |",
                "| fine-tuning | CFIMDB test | 1 | 0.1000 | 0.473 (0.198) | -1.9 | not comparable",
                "| zero-shot | SST dev | 0 | not run | 0.2371 (0.000) | – | – |"):
        assert row in results(folder)


@pytest.mark.parametrize("task, index, shares, expected", [
    ("sst-prompt", 0, [261 / 1101], ("0.2371 (0.000)", "–", "equal")),
    ("sst-prompt", 0, [262 / 1101], ("0.2371 (0.000)", "–", "differs")),
    ("sst-finetune", 0, [0.46], ("0.411 (0.025)", "+2.0", "agrees")),
    ("sst-finetune", 0, [0.462], ("0.411 (0.025)", "+2.0", "differs"))])
def test_verdicts(task, index, shares, expected):
    assert reproduce.compare(task, index, shares) == expected


def test_all_that_is_missing_is_named_before_any_work(folder, capsys, commands):
    for split in ("dev", "test"):
        (folder / f"data/sst-{split}.txt").unlink()
    status, _, (said,) = run(capsys)
    assert status == 2 and not commands and not (folder / "reproduction").exists()
    assert said.startswith("reproduce.py: missing: data/sst-dev.txt, data/sst-test.txt; ")
    assert run(capsys, "--tasks", "generate", "cfimdb")[0] == 0  # they need neither


def test_a_failed_run_is_reported_with_its_message_and_is_not_done(folder, capsys, monkeypatch):
    failing = {"run_llama.py": "exit('run_llama.py: x.txt: bad')"}
    monkeypatch.setattr(reproduce, "HERE", write(folder, failing))
    place = Path("reproduction/generate-1337")
    for _ in range(2):
        status, _, (said,) = run(capsys, "--tasks", "generate")
        assert status == 2 and "exit status 1: run_llama.py: x.txt: bad (" in said
        assert f"rename {place} " in said
    assert (place / "log.txt").read_text(encoding="utf-8") == "run_llama.py: x.txt: bad\n" * 2


def test_outputs_that_do_not_fit_the_data_are_no_result(folder, capsys, commands):
    assert run(capsys, "--tasks", "sst-lora")[0] == 0
    write(folder, {"data/sst-dev.txt": lines("other", [0] * 20)})
    status, _, (said,) = run(capsys, "--tasks", "sst-lora")
    place = Path("reproduction/sst-lora-1337")
    assert status == 2 and said.startswith(f"reproduce.py: {place}: sst-dev-lora-output.txt, line ")
    assert said.endswith("rename this folder to repeat the run")
    assert run(capsys, "--tasks", "generate")[0] == 0  # and does not count the run
    assert "| LoRA | SST dev | 0 | not run | " in results(folder)


def test_a_demo_can_be_packed_and_runs_elsewhere(tmp_path, monkeypatch, capsys):
    """With the first few reviews of each file, and runs in this process."""
    def execute(run, command) -> None:
        run.folder.mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.chdir(run.folder)
            assert run_llama.main(command[2:]) == 0

    heads = {f"demo/{path.name}": "\n".join(path.read_text(encoding="utf-8").split("\n")[:12])
             for path in (ROOT / "demo").glob("reviews*.*[nt]")}
    monkeypatch.setattr(reproduce, "HERE", write(tmp_path / "here", heads))
    shutil.copy(ROOT / "demo/sanity_check.data", reproduce.HERE / "demo")
    monkeypatch.setattr(reproduce, "execute", execute)
    monkeypatch.chdir(tmp_path)

    status, out, err = run(capsys, "--demo")
    assert (status, err, {*os.listdir()}) == (0, [], {"here", "reproduction"})
    home = Path("reproduction/demo")
    assert out[-1] == f"python prepare_submit.py SURNAME1_SURNAME2 --from {home}"
    assert "published figures do not apply" in results(home) and "0.411" not in results(home)
    assert re.search(r"\| LoRA \| reviews5 dev \| 1 \| 0.\d+ \| – \| – \| – \|", results(home))

    assert prepare_submit.main([NAME, "--from", str(home)]) == 0
    shutil.unpack_archive(f"{NAME}.zip")
    story = Path(NAME, STORIES[1]).read_bytes()
    Path(NAME, STORIES[1]).unlink()
    for name in ("stories.pt", "tokenizer.model"):
        shutil.copy(ROOT / "demo" / name, NAME)
    for command in (["run_llama.py", "--pretrained-model-path"], ["sanity_check.py"]):
        ran = subprocess.run([sys.executable, "-E", *command, "stories.pt"], cwd=NAME, text=True,
                             capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert ran.returncode == 0, ran.stderr
    assert "Your Llama implementation is correct!" in ran.stdout
    assert Path(NAME, STORIES[1]).read_bytes() == story
