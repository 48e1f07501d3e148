"""Training runs: what is learnt, that a killed one ends as it would have ended, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from surgery.anatomy.sources import find_source
from surgery.dit import ClassDiTPipeline, TextDiTPipeline
from surgery.errors import InputError, SpecError, SurgeryNote
from surgery.pipelines.pretrained import load_pretrained
from surgery.training.dit import training_run
from surgery.training.dit.noised_pictures import DenoisingLoss
from surgery.training.dit.pictures import DrawnEmoji
from surgery.training.dit.read_config import load_config
from surgery.training.dit.train_request import TrainRequest
from surgery.training.dit.training_run import train_model
from surgery.training.state import read_state

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def no_emoji():
    raise AssertionError("nobody asked for emoji")


def request_of(config, out, *, draw_emoji=no_emoji, force=False, **overrides):
    read = load_config(config).overridden(**overrides)
    return TrainRequest(config=read, out=out, draw_emoji=draw_emoji, device="cpu", force=force)


def weights_of(folder):
    return load_file(folder / WEIGHTS)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_loss_falls_and_what_was_learnt_lies_in_a_stock_folder(config, tmp_path):
    out = tmp_path / "out"
    found = train_model(request_of(config(steps=50, every=25), out))
    history = dict(found.facts["validation"]["history"])
    assert list(history) == [0, 25, 50] and history[50] < 0.8 * history[0] and history[50] < history[25]
    pipe = load_pretrained(find_source(str(out)), dtype="float32", device="cpu")
    assert isinstance(pipe, ClassDiTPipeline) and pipe.labels == {"blue": 0, "green": 1, "red": 2}
    facts = json.loads((out / "training.json").read_text())
    assert facts["pictures"] == {
        "source": "pictures", "learnt": 15, "held_out": 3, "labels": {"blue": 5, "green": 5, "red": 5},
    }  # fmt: skip
    assert facts["config"] == (tmp_path / "train.yaml").read_text() and str(tmp_path) not in json.dumps(facts)
    assert set(facts["validation"]["bins"]) == {"0.25", "0.75"}
    work = tmp_path / "out.training"
    assert sorted(path.name for path in (work / "samples").iterdir()) == [f"step-{n:06}.png" for n in (0, 25, 50)]
    assert len(list((work / "held_out").iterdir())) == 3
    assert (work / "held_out.txt").read_text().split() == ["blue", "green", "red"]


def test_the_averaged_weights_are_what_is_measured_and_kept(config, tmp_path):
    train_model(request_of(config(), tmp_path / "out"))
    state = read_state(tmp_path / "out.training")
    kept, last = weights_of(tmp_path / "out"), state["model"]
    averaged = dict(zip(last, state["average"]["shadow_params"], strict=True))
    assert all(torch.equal(kept[name], averaged[name]) for name in last)
    assert not same({name: kept[name] for name in last}, last)


def test_a_killed_run_ends_as_it_would_have_ended_to_the_bit(config, tmp_path, monkeypatch):
    """It ends when the fifth loss is asked for; a process that is killed itself is in test_loop.py."""
    calls = []

    class Killing(DenoisingLoss):
        def __call__(self, model, batch):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt("killed")
            return super().__call__(model, batch)

    path = config(conditioning="freq_gate")
    train_model(request_of(path, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "DenoisingLoss", Killing)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            train_model(request_of(path, tmp_path / "killed"))
    assert read_state(tmp_path / "killed.training")["step"] == 3
    again = train_model(request_of(path, tmp_path / "killed"))
    assert same(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"))
    assert again.facts["validation"] == json.loads((tmp_path / "whole" / "training.json").read_text())["validation"]


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_last_good_state_is_kept(config, tmp_path, monkeypatch):
    class Broken(DenoisingLoss):
        def __call__(self, model, batch):
            factor = float("nan") if read_state(tmp_path / "out.training") else 1.0
            return {name: factor * value for name, value in super().__call__(model, batch).items()}

    monkeypatch.setattr(training_run, "DenoisingLoss", Broken)
    with pytest.raises(InputError, match=r"the loss mse is nan at step 4.*the last good state, of step 3, is kept in"):
        train_model(request_of(config(), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_state_gives_way_to_another_config(config, tmp_path, monkeypatch):
    class Broken(DenoisingLoss):
        def __call__(self, model, batch):
            return {name: float("nan") * value for name, value in super().__call__(model, batch).items()}

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "DenoisingLoss", Broken)
        with pytest.raises(InputError, match=r"the loss mse is nan at step 1.*no state was kept before it"):
            train_model(request_of(config(), tmp_path / "out"))
    train_model(request_of(config("3e-3", "1e-3", steps=1), tmp_path / "out"))


def test_a_run_among_its_own_pictures_is_refused(config, pictures):
    with pytest.raises(InputError, match=r"pictures/red/out lies among the pictures of .*; give a folder elsewhere"):
        train_model(request_of(config(), pictures / "red" / "out"))


def test_a_run_is_not_mixed_up_with_that_of_another_config_or_of_other_pictures(
    config, pictures, tmp_path, monkeypatch
):
    def full(*_args, **_kwargs):
        raise InputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "write_trained", full)
        with pytest.raises(InputError, match="the disk is full"):
            train_model(request_of(config(), tmp_path / "out"))
    with pytest.raises(InputError, match=r"out.training holds the results of another request; give another folder"):
        train_model(request_of(config("hidden_size: 16", "hidden_size: 32"), tmp_path / "out"))
    Image.new("RGB", (8, 8), "white").save(pictures / "red" / "more.png")
    with pytest.raises(InputError, match=r"out.training holds the state of a run with other pictures; give another"):
        train_model(request_of(config(), tmp_path / "out"))
    train_model(request_of(config(), tmp_path / "out", force=True))
    with pytest.raises(InputError, match=r"out is not empty; give another folder, or --force to write into it"):
        train_model(request_of(config(), tmp_path / "out"))


def test_latents_and_texts_are_learnt_from_a_folder_with_captions(config, pictures, tmp_path):
    files = sorted(pictures.rglob("*.png"))
    rows = [{"file_name": str(file.relative_to(pictures)), "text": f"{file.parent.name} heart"} for file in files]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = "autoencoder: demo\ntext_encoder: demo\n"
    path = config("size: 8}", "size: 16}\n" + more, steps=2, every=2)
    found = train_model(request_of(path, tmp_path / "out"))
    assert found.facts["model"]["pooled_projection_dim"] == 128 and found.facts["model"]["in_channels"] == 4
    pipe = load_pretrained(find_source(str(tmp_path / "out")), dtype="float32", device="cpu")
    assert isinstance(pipe, TextDiTPipeline)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("red heart", num_inference_steps=1).images[0].size == (16, 16)


def test_a_patch_that_does_not_divide_latents_is_told_with_its_place(config, tmp_path):
    path = config("size: 8}", "size: 8}\nautoencoder: demo", conditioning="adaln_zero")
    path.write_text(path.read_text().replace("patch_size: 4", "patch_size: 8"))
    with pytest.raises(SpecError, match=r"train.yaml:2:\d+: a sample_size of 2 can't be cut into patches of 8"):
        train_model(request_of(path, tmp_path / "out"))
    with pytest.raises(SpecError, match=r"train.yaml:4:14: the autoencoder nowhere can't be loaded: "):
        train_model(request_of(config("size: 8}", "size: 8}\nautoencoder: nowhere"), tmp_path / "out"))


def test_faults_of_a_folder_stand_at_its_place_in_the_config(config, pictures, tmp_path):
    (pictures / "red" / "0.png").write_bytes(b"none")
    Image.new("RGB", (8, 6)).save(pictures / "red" / "1.png")
    path = config()
    with pytest.raises(SpecError, match=r"train.yaml:3:18: .*1 picture of 18 can't be read") as error:
        train_model(request_of(path, tmp_path / "out"))
    assert len(error.value.faults) == 2 and "pictures have 2 sizes" in error.value.faults[1]
    path = config("size: 8}", "size: 8, skip_unreadable: true, crop: true}")
    with pytest.warns(SurgeryNote, match="1 picture of 18 can't be read, and left out"):
        found = train_model(request_of(path, tmp_path / "out"))
    assert found.facts["pictures"]["learnt"] + found.facts["pictures"]["held_out"] == 17


def test_digits_and_emoji_are_pictures_too(config, tmp_path):
    drawn = [
        DrawnEmoji(f"{name} {number}", name if number else "", Image.new("RGB", (64, 64), (number, len(name), 9)))
        for name in ("cat", "heart")
        for number in range(9)
    ]
    asked = request_of(config("pictures, size: 8", "emoji, size: 8", steps=1), tmp_path / "a", draw_emoji=lambda: drawn)
    assert train_model(asked).facts["pictures"]["labels"] == {"cat": 6, "heart": 6}  # of 8 in a group, 2 held out
    path = config("pictures, size: 8", "digits", steps=1)
    path.write_text(path.read_text().replace("share: 0.2", "pictures: 20, share: 0.2"))
    found = train_model(request_of(path, tmp_path / "b"))
    assert list(found.facts["pictures"]["labels"]) == list("0123456789") and found.facts["model"]["in_channels"] == 1
    assert found.facts["pictures"]["held_out"] == 20
