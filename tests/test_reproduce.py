"""Runs are kept, resumed and compared with what is published; the outcome can be handed in."""

import json
import os
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
import torch

import prepare_submit
import reference
import reproduce
import run_llama
import runs
import test_prepare_submit
from runs import ROOT, STORIES, TRAINING
from test_prepare_submit import NAME, PREDICTIONS, lay_out_repository
from utils import PROMPT, InputError, read_examples

NAMES = {"sst": ["awful", "bad", "average", "good", "excellent"], "cfimdb": ["bad", "good"]}
run = partial(test_prepare_submit.run, main=reproduce.main)
RIGHT = {seed: {"dev": dev, "test": 1} for seed, dev in ((1337, 5), (1338, 6), (1339, 9))}  # of ten


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Stand-ins for the official files: no model, and sentences that end in their label."""
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    for name in ("stories42M.pt", "tokenizer.model"):
        (work / name).write_bytes(b"a stand-in")
    for dataset, words in NAMES.items():
        for split, count in (("train", 20), ("dev", 10), ("test", 10)):
            (work / f"data/{dataset}-{split}.txt").write_text("".join(
                f"{i % len(words)} ||| a {split} film no. {i} was {words[i % len(words)]}\n"
                for i in range(count)), encoding="utf-8")
        (work / f"data/{dataset}-label-mapping.json").write_text(json.dumps(words))
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def commands(monkeypatch) -> list[Namespace]:
    """Replace runs by quick stand-ins, and collect the options of their commands."""
    done = []

    def execute(run, command, progress) -> tuple[int, str]:
        run.folder.mkdir(parents=True, exist_ok=True)
        assert Path(command[0]) == Path(sys.executable) and command[1].endswith("run_llama.py")
        args = run_llama.get_args(command[2:])
        done.append(args)
        for name in run.outputs.values() if args.option == "generate" else ():
            (run.folder / name).write_text(PROMPT + " clocks", encoding="utf-8")
        for epoch in range(args.epochs if args.option in TRAINING else 0):
            progress.show(run, f"{'LoRA ' * (args.option == 'lora')}epoch {epoch}: train loss :: "
                               "1.653, train acc :: 0.322, dev acc :: 0.281, 12 s\n")
        for split in ("dev", "test") if run.dataset else ():
            question = " Is this movie so or so? This movie is" * (args.option == "prompt")
            (run.folder / getattr(args, f"{split}_out")).write_text("".join(
                f"{label if i < RIGHT[args.seed][split] else int(not label)} ||| "
                f"{sentence}{question}\n"
                for i, (label, sentence) in enumerate(read_examples(getattr(args, split)))),
                encoding="utf-8")
        return 0, ""

    monkeypatch.setattr(reproduce, "execute", execute)
    return done


def execute_here(run, command, progress) -> tuple[int, str]:
    """Do the run in this process, which has imported PyTorch."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.folder)
        try:
            return run_llama.main(command[2:]), ""
        except InputError as error:
            return error.status, f"run_llama.py: {error}"


def table(path: Path) -> dict[tuple[str, str], list[str]]:
    """The cells of results.md by job and sentences."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return {(job, sentences): cells for job, sentences, *cells in rows[2:]}


def test_the_commands_are_those_of_the_assignment(folder, capsys, commands):
    assert run(capsys)[0] == 0
    given = {(args.option, Path(args.train).name): args for args in commands}
    assert len(given) == len(commands) == 7 and {args.seed for args in commands} == {1337}
    assert {Path(args.pretrained_model_path).name for args in commands} == {"stories42M.pt"}
    for dataset, batch_size in (("sst", 80), ("cfimdb", 10)):
        assert given["prompt", f"{dataset}-train.txt"].batch_size == 10
        for option in TRAINING:
            args = given[option, f"{dataset}-train.txt"]
            assert (args.epochs, args.lr, args.batch_size) == (5, 2e-5, batch_size) and args.resume
        assert (args.lora_rank, args.lora_alpha) == (4, 1.0)
    assert all((folder / name).is_file() for name in PREDICTIONS + STORIES)


@pytest.mark.parametrize("words, count", [
    (["sst"], 3), (["lora"], 2), (["generate", "cfimdb-prompt"], 2), (["finetune", "sst"], 4)])
def test_tasks_are_chosen_by_name_job_or_data_set(words, count, folder, capsys, commands):
    assert run(capsys, "--tasks", *words)[0] == 0 and len(commands) == count


def test_only_what_draws_at_random_is_repeated_and_what_is_done_is_kept(folder, capsys, commands):
    run(capsys, "--seeds", "2")
    assert [args.seed for args in commands] == [1337] * 7 + [1338] * 4
    assert {args.option for args in commands[7:]} == {*TRAINING}
    _, out, _ = run(capsys, "--seeds", "3", "--tasks", "lora")
    assert len(commands) == 13 and sum("done before" in line for line in out) == 4
    top, first, second = ((folder / place / "sst-dev-lora-output.txt").read_bytes() for place in (
        "", "reproduction/sst-lora-1337", "reproduction/sst-lora-1338"))
    assert top == first != second


def test_progress_says_which_run_of_how_many_and_how_long_the_rest_takes(
        folder, capsys, commands):
    _, out, _ = run(capsys, "--tasks", "sst-prompt", "sst-lora", "--seeds", "2")
    assert out[:4] == ["run 1 of 3: sst-prompt-1337", "    dev accuracy 0.5000",
                       "    test accuracy 0.1000", "run 2 of 3: sst-lora-1337"]
    # An epoch takes 12 s: after the first one 4 are left of this run, and 5 of the next.
    assert out[4] == ("    LoRA epoch 0: train loss :: 1.653, train acc :: 0.322, dev acc :: "
                      "0.281, 12 s; all runs: about 0:01:48 left")
    assert out[-5].endswith("all runs: about 0:00:00 left")


@pytest.mark.parametrize("change, times", [
    (lambda run: os.truncate("data/sst-label-mapping.json", 60), 1),
    (lambda run: shutil.copytree(run, f"{run}-backup"), 1),
    (lambda run: (run / "sst-dev-lora-output.txt").unlink(), 2)])
def test_a_run_is_done_again_only_where_an_output_is_missing(
        change, times, folder, capsys, commands):
    assert run(capsys, "--tasks", "sst-lora")[0] == 0
    results = (folder / "results.md").read_bytes()
    change(folder / "reproduction/sst-lora-1337")
    assert run(capsys, "--tasks", "sst-lora")[0] == 0
    assert len(commands) == times and (folder / "results.md").read_bytes() == results


def test_outputs_for_other_data_are_moved_aside_and_made_again(folder, capsys, commands):
    work = folder / "reproduction"
    for number, word in enumerate(("first", "second", "third")):
        (folder / "data/sst-dev.txt").write_bytes(f"0 ||| the {word} film\n".encode() * 10)
        assert run(capsys, "--tasks", "sst-prompt")[0] == 0 and len(commands) == number + 1
        assert len([*work.glob("sst-prompt-1337.old*")]) == number
    old = work / "sst-prompt-1337.old1/sst-dev-prompting-output.txt"
    assert "the first film" in old.read_text(encoding="utf-8")


def test_a_second_instance_does_no_harm(folder, capsys, commands, monkeypatch):
    execute = reproduce.execute

    def interleaved(*args):
        with monkeypatch.context() as patch:
            patch.setattr(reproduce, "execute", execute)
            assert reproduce.main(["--tasks", "sst-lora", "--seeds", "2"]) == 0
        return execute(*args)

    monkeypatch.setattr(reproduce, "execute", interleaved)
    assert run(capsys, "--tasks", "sst-lora", "--seeds", "2")[0] == 0
    assert [args.seed for args in commands] == [1337, 1338, 1337]


def test_a_run_that_was_interrupted_with_other_options_is_moved_aside(
        folder, capsys, monkeypatch, tiny_tokenizer):
    monkeypatch.setattr(reproduce, "execute", execute_here)
    reference.save_checkpoint(folder / "stories42M.pt", runs.WEIGHTS, runs.SHAPE)
    shutil.copy(tiny_tokenizer, folder / "tokenizer.model")
    state = folder / "reproduction/sst-lora-1337/sst-dev-lora-output.resume.pt"
    state.parent.mkdir(parents=True)
    torch.save({"options": {}}, state)
    status, out, _ = run(capsys, "--tasks", "sst-lora")
    (said,) = [line for line in out if "sst-lora-1337.old1" in line]
    assert status == 0 and "lora_rank" in said
    assert (folder / "reproduction/sst-lora-1337.old1" / state.name).is_file()
    assert not state.exists() and (state.parent / "sst-dev-lora-output.txt").is_file()


ENDLESS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path("ended").touch()))
print("LoRA epoch 0: train loss :: 1.653, 12 s", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_running_command_too(number, status, folder, tmp_path):
    for name in ("reproduce.py", "prepare_submit.py", "utils.py", "tokenizer.py"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "run_llama.py").write_text(ENDLESS, encoding="utf-8")
    with subprocess.Popen([sys.executable, tmp_path / "reproduce.py", "--tasks", "sst-lora"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any("epoch 0" in line for line in process.stdout)
        process.send_signal(number)
        _, err = process.communicate()
    assert (process.returncode, err) == (
        status, "reproduce.py: interrupted; the same command continues from here\n")
    assert (folder / "reproduction/sst-lora-1337/ended").exists()


def test_results_have_means_and_standard_deviations_of_the_written_outputs(
        folder, capsys, commands, monkeypatch):
    monkeypatch.setitem(reproduce.PUBLISHED, "sst-lora", ((0.70, 0.03), (0.10, 0.02)))
    run(capsys, "--seeds", "3", "--tasks", "sst-lora")
    run(capsys, "--tasks", "cfimdb-finetune")
    # dev: 0.5, 0.6 and 0.9; their mean is 2/3, and the sum of squares from it 0.0866… = 13/150,
    # so the standard deviation is the root of 13/300, 0.2082; (2/3 - 0.70) / 0.03 is -1.1.
    rows = table(folder / "results.md")
    assert rows["LoRA", "SST dev"] == ["3", "0.6667 (0.2082)", "0.700 (0.030)", "-1.1", "agrees"]
    assert rows["LoRA", "SST test"] == ["3", "0.1000 (0.0000)", "0.100 (0.020)", "+0.0", "agrees"]
    # One seed has no standard deviation; (0.1 - 0.473) / 0.198 is -1.88.
    assert rows["fine-tuning", "CFIMDB test"] == [
        "1", "0.1000", "0.473 (0.198)", "-1.9", "not comparable"]
    assert rows["zero-shot", "SST dev"] == ["0", "not run", "0.2371 (0.000)", "–", "–"]


@pytest.mark.parametrize("task, index, shares, expected", [
    ("sst-prompt", 0, [261 / 1101], ("0.2371 (0.000)", "–", "equal")),
    ("sst-prompt", 0, [262 / 1101], ("0.2371 (0.000)", "–", "differs")),
    ("cfimdb-prompt", 1, [53 / 488], ("0.1086 (0.000)", "–", "equal")),
    ("sst-finetune", 0, [0.46], ("0.411 (0.025)", "+2.0", "agrees")),
    ("sst-finetune", 0, [0.462], ("0.411 (0.025)", "+2.0", "differs")),
    ("sst-lora", 1, [0.2, 0.25], ("0.269 (0.020)", "-2.2", "differs")),
    ("cfimdb-lora", 1, [0.5], ("0.506 (0.239)", "-0.0", "not comparable"))])
def test_verdicts(task, index, shares, expected):
    assert reproduce.compare(task, index, shares) == expected


def test_all_that_is_missing_is_named_before_any_work(folder, capsys, commands):
    (folder / "data/sst-dev.txt").unlink()
    (folder / "data/sst-test.txt").unlink()
    status, _, err = run(capsys)
    assert status == 2 and not commands and not (folder / "reproduction").exists()
    assert err[0].startswith("reproduce.py: missing: data/sst-dev.txt, data/sst-test.txt; ")
    assert run(capsys, "--tasks", "generate", "cfimdb")[0] == 0  # they need neither


def test_a_failed_run_is_reported_with_its_message_and_is_not_done(
        folder, capsys, monkeypatch, tmp_path):
    (tmp_path / "run_llama.py").write_text("exit('run_llama.py: x.txt: bad')", encoding="utf-8")
    monkeypatch.setattr(reproduce, "HERE", tmp_path)
    for _ in range(2):
        status, out, err = run(capsys, "--tasks", "generate")
        assert (status, out) == (1, ["run 1 of 1: generate-1337"])
        assert "exit status 1: run_llama.py: x.txt: bad (" in err[0]
        assert "reproduction/generate-1337/log.txt" in err[0]


def test_outputs_that_do_not_fit_the_data_are_no_result(folder, capsys, commands, monkeypatch):
    execute = reproduce.execute

    def cut_short(run, *args) -> tuple[int, str]:
        result, path = execute(run, *args), run.folder / "sst-dev-lora-output.txt"
        path.write_bytes(path.read_bytes()[:-50])
        return result

    monkeypatch.setattr(reproduce, "execute", cut_short)
    for _ in range(2):
        status, out, (said,) = run(capsys, "--tasks", "sst-lora")
        assert status == 1 and "done before" not in out[0]
        assert "sst-dev-lora-output.txt" in said and not (folder / "results.md").exists()


def test_a_demo_can_be_packed_and_runs_elsewhere(folder, tmp_path, monkeypatch, capsys):
    """With less data, and one epoch of training."""
    monkeypatch.setattr(reproduce, "execute", execute_here)
    repository = tmp_path / "repository"
    lay_out_repository(repository)
    demo = shutil.move(folder / "data", repository / "demo")
    for dataset, name in (("sst", "reviews5"), ("cfimdb", "reviews2")):
        for path in demo.glob(f"{dataset}-*"):
            path.rename(demo / path.name.replace(dataset, name))
    shutil.copy(ROOT / "demo/sanity_check.data", demo)
    for module in (reproduce, prepare_submit):
        monkeypatch.setattr(module, "HERE", repository)
    monkeypatch.setattr(reproduce, "DEMO_PLAN", reproduce.DEMO_PLAN._replace(epochs=1))
    before = {*os.listdir()}

    status, out, err = run(capsys, "--demo")
    assert (status, err, {*os.listdir()} - before) == (0, [], {"reproduction"})
    home = Path("reproduction/demo")
    assert out[-1] == f"python prepare_submit.py SURNAME1_SURNAME2 --from {home}"
    results = (home / "results.md").read_text(encoding="utf-8")
    assert "published figures do not apply" in results and "0.411" not in results
    assert table(home / "results.md")["LoRA", "reviews5 dev"][2:] == ["–", "–", "–"]

    assert prepare_submit.main([NAME, "--from", str(home)]) == 0
    shutil.unpack_archive(f"{NAME}.zip", tmp_path / "elsewhere")
    submission = tmp_path / "elsewhere" / NAME
    story = (submission / STORIES[1]).read_bytes()
    (submission / STORIES[1]).unlink()
    shutil.copytree(home / "data", submission / "data")
    for name in ("stories.pt", "tokenizer.model"):
        shutil.copy(ROOT / "demo" / name, submission)
    generate = ["run_llama.py", "--pretrained-model-path", "stories.pt"]
    lora = ["--option", "lora", "--epochs", "1", *(
        f"--{split}_out=cfimdb-{split}-lora-output.txt" for split in ("dev", "test"))]
    for command in (generate, [*generate, *lora], ["sanity_check.py", "stories.pt"]):
        ran = subprocess.run([sys.executable, "-E", *command], cwd=submission, text=True,
                             capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert ran.returncode == 0, ran.stderr
    assert "Your Llama implementation is correct!" in ran.stdout
    assert (submission / STORIES[1]).read_bytes() == story
