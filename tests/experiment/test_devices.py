"""Every judge is where its run is: the network, and what it is given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from surgery.demo.bundled_judges import bundled_clip, bundled_judges
from surgery.errors import InputError
from surgery.experiment import evaluation, judges
from surgery.experiment.judges import JudgeRequest, load_judges
from surgery.experiment.prompts import PromptSet
from surgery.experiment.scores import score_row
from surgery.experiment.sights import Observed
from surgery.metrics import paired
from surgery.metrics.pictures import read_pictures

DEVICE = "cpu:1"  # torch takes it for one of its own, and copies what is moved there: a copy has a storage of its own
SKIP = Path(__file__).parents[2] / "specs" / "demo" / "skip.yaml"
PROMPTS = PromptSet(tuple(f"prompt {number}" for number in range(4)))


class Moved(TorchFunctionMode):
    """Remembers what is moved to DEVICE; then, for each class of network, whether its weights and inputs were."""

    def __init__(self):
        super().__init__()
        self.kept = []  # or a storage could be used again
        self.weights, self.inputs = {}, {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func is torch.Tensor.to and DEVICE in map(str, (*args[1:], *(kwargs or {}).values())):
            self.kept.append(found.untyped_storage())
        return found

    def has(self, tensor):
        return tensor.untyped_storage().data_ptr() in {storage.data_ptr() for storage in self.kept}

    def watch(self, module, inputs):
        name = type(module).__name__
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        self.weights[name] = self.weights.get(name, True) and all(self.has(tensor) for tensor in own)
        given = [item for item in inputs if isinstance(item, torch.Tensor)]
        self.inputs[name] = self.inputs.get(name, False) or bool(given and all(self.has(tensor) for tensor in given))


@pytest.fixture
def moved():
    mode = Moved()
    handle = register_module_forward_pre_hook(mode.watch)
    with mode:
        yield mode
    handle.remove()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Real pictures, a tiny DINOv2, and a backbone of LPIPS with random weights."""
    from torchvision.models import alexnet
    from transformers import Dinov2Config, Dinov2Model

    (tmp_path / "real").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "real" / f"{number}.png")
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
    with torch.device("meta"):
        shapes = {f"features.{name}": value.shape for name, value in alexnet().features.state_dict().items()}
    torch.save({name: torch.rand(shape) / 100 for name, shape in shapes.items()}, tmp_path / "alex.pth")
    monkeypatch.setitem(paired.LPIPS_BACKBONES, "alex", ("alex.pth", ""))  # as if it were the published one
    return tmp_path


def test_every_judge_and_what_it_is_given_is_on_the_device_of_the_run(files, moved):
    request = JudgeRequest(
        extractors=("bundled", "own_extractors:Loaded", f"dinov2:{files / 'dinov2'}"),
        clip="bundled",
        cmmd=True,
        lpips="alex",
        lpips_weights=files / "alex.pth",
        reference=files / "real",
        bundled=bundled_judges(),
    )
    found, _ = load_judges(request, PROMPTS, "other", files / "store", device=DEVICE)
    pictures = read_pictures(files / "real", role="scored")
    score_row(Observed(pictures, pictures, PROMPTS.prompts, found))
    assert [name for name, on_device in moved.weights.items() if not on_device] == []
    networks = {"EmojiExtractor", "Loaded", "Dinov2Model", "ModifiedResNet", "Embedding", "LPIPS"}  # of CLIP: two sides
    assert networks <= {name for name, on_device in moved.inputs.items() if on_device}


@pytest.mark.parametrize(
    ("loader", "options"),
    [
        ("inception_extractor", {"extractors": ("inception",)}),
        ("load_clip", {"clip": f"local-dir:{bundled_clip()}"}),
        ("load_clip", {"hps_weights": "hps.pt"}),
    ],
    ids=["Inception", "a named CLIP", "HPSv2.1"],
)
def test_judges_whose_weights_are_large_are_told_the_device(monkeypatch, tmp_path, loader, options):
    asked = []

    def load(*args, device="cpu", **_):
        asked.append(device)
        raise InputError("it would take too long")

    monkeypatch.setattr(judges, loader, load)
    request = JudgeRequest(**{"extractors": ("none",), "clip": "none", "lpips": "none", **options})
    with pytest.raises(InputError, match="it would take too long"):
        load_judges(request, PROMPTS, "other", tmp_path, device=DEVICE)
    assert asked == [DEVICE]


def evaluate_on(device, folder):
    request = evaluation.EvaluationRequest(
        specs=(str(SKIP),), prompts=PROMPTS, out=folder, judges=JudgeRequest(), device=device
    )
    return evaluation.run_evaluation(request)


def test_the_run_tells_its_judges_its_device(monkeypatch, tmp_path):
    def load(*args, device="cpu"):
        raise InputError(f"judges on {device}")

    monkeypatch.setattr(evaluation, "load_judges", load)
    with pytest.raises(InputError, match=f"judges on {DEVICE}"):
        evaluate_on(DEVICE, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"judges on cpu$"):
        evaluate_on("auto", tmp_path)


@pytest.mark.parametrize("device", ["toaster", "cuda:77"])
def test_a_device_that_there_is_not_is_said_before_a_judge_is_loaded(tmp_path, device):
    with pytest.raises(InputError, match=f"nothing can be put on the device {device}: .*; write cpu, or auto"):
        evaluate_on(device, tmp_path)


def test_a_backbone_that_lpips_has_not_is_refused(tmp_path):
    """It is not taken for the default in silence."""
    request = JudgeRequest(extractors=("none",), clip="none", lpips="resnet")
    with pytest.raises(InputError, match="LPIPS has no backbone resnet; it has alex, vgg, squeeze"):
        load_judges(request, PROMPTS, "other", tmp_path)
