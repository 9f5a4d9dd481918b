"""Training in several processes gives the same weights on each, and nearly those of a single process."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.sync_batchnorm import synchronised
from sightline.training import process_group
from sightline.training.process_group import ALONE, ProcessGroup
from tests.conftest import write_few_digits
from tests.training import team

ROOT = Path(__file__).parents[2]
TWO = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
RECIPE = 'method = "scratch"\nbackbone = "cnn(filters=[8])"\nimage_size = 16\n[settings]\nepochs = 2\nbatch_size = 16\n'


@pytest.mark.parametrize(("n", "count"), [(2, 1), (8, 3), (15, 2), (64, 8), (7, 3)])
def test_processes_partition_a_batch_evenly(n: int, count: int) -> None:
    shares = [np.arange(n)[ProcessGroup(rank, count).share(n)] for rank in range(count)]
    assert np.concatenate(shares).tolist() == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_batches_that_leave_a_process_one_image_are_refused() -> None:
    ProcessGroup(0, 2).check([np.arange(4), np.arange(5)])
    ProcessGroup(0, 1).check([np.arange(2)])
    with pytest.raises(RequestError, match="a batch of 3 images cannot be shared out among 2 processes") as error:
        ProcessGroup(0, 2).check([np.arange(4), np.arange(3)])
    assert "batch_size to at least 4" in str(error.value.hint)


def test_rank_and_world_size_are_read_from_the_environment_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_group.started() == ALONE == process_group.here()
    monkeypatch.setenv("WORLD_SIZE", "2")  # another program's
    assert process_group.started() == ALONE
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    assert process_group.started() == ProcessGroup(1, 2) and not process_group.started().first
    assert process_group.here() == ALONE  # nothing was joined
    with pytest.raises(RequestError, match="a sweep cannot be shared out among 2 processes"):
        process_group.check_alone("a sweep")


def test_collective_operations_do_nothing_in_a_single_process() -> None:
    x = torch.ones(3)
    assert ALONE.add_up(x) is x and ALONE.any(True) and not ALONE.any(False)
    ALONE.average_statistics(nn.BatchNorm2d(3).train())


def test_synchronised_batchnorm_layers_are_restored_with_the_same_tensors() -> None:
    from timm.layers import BatchNormAct2d

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(BatchNormAct2d(4), nn.BatchNorm2d(4).eval()))
    before = dict(network.named_modules())
    with pytest.raises(KeyError), synchronised(network):
        kinds = [type(m).__name__ for m in network.modules() if "Norm" in type(m).__name__]
        assert kinds == ["SyncBatchNorm", "SyncBatchNormAct", "SyncBatchNorm"]
        assert [m.training for m in network.modules() if "Norm" in type(m).__name__] == [True, True, False]
        assert network[1].weight is before["1"].weight and network[1].running_mean is before["1"].running_mean
        network.eval()
        raise KeyError  # whatever happens within
    assert dict(network.named_modules()) == before and not network[1].training


# ------------------------------------------------------------------------------------------------------ two processes


def torchrun(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two processes, as `torchrun --nproc_per_node 2` starts them, a thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *words]
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, timeout=300, check=False)


@functools.cache
def whole(folder: Path, precision: str) -> Path:
    """Return the folder with the weights of both processes of an uninterrupted training, once per precision."""
    out = folder / f"whole-{precision}"
    done = torchrun("-m", "tests.training.team", "normed", str(out), SIGHTLINE_PRECISION=precision)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole(tmp_path_factory.getbasetemp(), os.environ["SIGHTLINE_PRECISION"])


def both(out: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the history that both processes ended with."""
    first, second = (load_file(out / rank / "weights.safetensors") for rank in "01")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    facts, others = (json.loads((out / rank / "facts.json").read_text(encoding="utf-8")) for rank in "01")
    assert facts["history"] == others["history"]
    return first, facts


@pytest.fixture
def one_thread() -> Any:
    """Use one thread, as the two processes do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="gloo needs a Unix here")
@pytest.mark.parametrize("kind", ["mixed", "growing"])
def test_two_processes_learn_the_same_weights_as_one(kind: str, tmp_path: Path, one_thread: None) -> None:
    """Weighted and mixed losses, images of several sizes, shares of 8 and 7 images, a layer that nothing uses."""
    done = torchrun("-m", "tests.training.team", kind, str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    weights, facts = both(tmp_path / "out")
    network, trained = team.learn(kind)
    for name, value in network.state_dict().items():
        assert torch.allclose(weights[name], value, atol=1e-6), name
    lines = [[x.train_loss, x.train_accuracy, x.val_loss, x.val_accuracy] for x in trained.history]
    assert np.allclose(facts["history"], lines, atol=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        start = team.Simple().state_dict()
    assert not torch.allclose(weights["first.weight"], start["first.weight"], atol=1e-3)


@pytest.mark.precision
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="gloo needs a Unix here")
def test_with_batchnorm_two_processes_agree_and_score_like_one(uninterrupted: Path, one_thread: None) -> None:
    _, facts = both(uninterrupted)
    _, trained = team.learn("normed")
    assert abs(facts["history"][-1][2] - trained.history[-1].val_loss) < 0.15
    assert abs(facts["history"][-1][3] - trained.history[-1].val_accuracy) < 0.15


@pytest.mark.precision
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_two_processes_killed_and_resumed_give_bit_identical_weights(number: int, uninterrupted: Path, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    killed = torchrun("-m", "tests.training.team", "normed", str(tmp_path / "killed"), kept, str(int(number)), "8")
    assert killed.returncode != 0 and not (tmp_path / "killed").exists()
    assert (tmp_path / "kept" / "state.safetensors").is_file()
    again = torchrun("-m", "tests.training.team", "normed", str(tmp_path / "again"), kept)
    assert again.returncode == 0, again.stderr
    (a, _), (b, facts) = both(uninterrupted), both(tmp_path / "again")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not facts["notes"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="gloo needs a Unix here")
def test_only_the_first_process_prints_and_writes(tmp_path: Path) -> None:
    photos = write_few_digits(tmp_path / "digits", 12)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    command = ("-m", "sightline", "train", str(photos), "recipe.toml", "-o", "run", "--json")
    done = torchrun(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)  # one value, not two
    assert value["method"] == "scratch" and (tmp_path / "run" / "report.html").is_file()


def test_a_method_without_epochs_is_refused_once_for_two_processes(cli: Callable[..., Any], tmp_path: Path) -> None:
    photos = write_few_digits(tmp_path / "digits", 3)
    (tmp_path / "recipe.toml").write_text('method = "features"\nbackbone = "pixels"\n', encoding="utf-8")
    command = ("train", str(photos), "recipe.toml", "-o", "run")
    ended = cli(*command, env={**TWO, "RANK": "0"})
    assert ended.code == 2 and "features does not train by epochs, so 2 processes would repeat the same work" in ended.err
    ended = cli(*command, env=TWO)  # the other one leaves in silence
    assert ended.code == 2 and ended.err == "" and ended.out == ""
    ended = cli("run", str(photos), "--heatmaps", "none", env={**TWO, "RANK": "0"})
    assert ended.code == 2 and "a run cannot be shared out among 2 processes" in ended.err
