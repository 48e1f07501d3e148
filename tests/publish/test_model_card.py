"""The model card: metadata that the hub takes, figures that are right, code that runs, and nothing of this machine."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import diffusers
import original_layouts
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, PixArtTransformer2DModel, SD3Transformer2DModel
from huggingface_hub import ModelCard
from safetensors import safe_open
from typer.testing import CliRunner

from surgery.anatomy.identity import Identity
from surgery.bundled import demo_folder
from surgery.commands.main import app
from surgery.plan.plan import plan_from_text
from surgery.plan.planned import plan_spec_file
from surgery.publish.model_card import CardFacts, Size, TransformerFacts, read_card_head, write_card
from surgery.publish.pruned_model import CompileOptions, compile_planned
from surgery.publish.recipe import hide_paths, public_name
from surgery.testing import build_tiny_model

BASE_CARD = """---
license: other
license_name: flux-1-dev-non-commercial-license
license_link: LICENSE.md
language:
- en
- zh
pipeline_tag: text-to-image
base_model: somebody/the-first
extra_gated_prompt: "By clicking \\"Agree\\", you agree to the terms: all of them."
extra_gated_fields:
  I agree: checkbox
datasets: [somebody/pictures]
widget: [{text: a cat}]
tags: [flux]
---
# The original
"""
SECRET = "name-of-a-person"  # within the path of every model and spec here


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder whose path nobody should read."""
    folder = tmp_path_factory.mktemp("home") / SECRET
    folder.mkdir()
    return folder


def prune(home, name, model, operations, **options):
    """Compiles a spec for a model; returns the new folder, and what was written."""
    spec = home / f"{name}-spec.yaml"
    listed = "".join(f"\n  - {operation}" for operation in operations)
    head = f"surgery: v1\nmodel: {model}  # {model} as of today\ntitle: 'Fewer layers: {name}'\n"
    spec.write_text(f"{head}operations:{listed or ' []'}\n")
    out = home / name
    return out, compile_planned(plan_spec_file(spec), out, CompileOptions(verify="structure", **options))


@pytest.fixture(scope="module")
def pipeline(home):
    """The demo as a pipeline on somebody's disk, with a card and a licence; pruned."""
    base = home / "models" / "base"
    shutil.copytree(demo_folder(), base)
    (base / "README.md").write_text(BASE_CARD)
    (base / "LICENSE.md").write_text("Be kind.")
    return prune(home, "pruned", base, ['skip: "transformer_blocks[1, 5:8]"', 'reverse: "transformer_blocks[2:4]"'])


@pytest.fixture(scope="module")
def transformer(home):
    """A tiny bfloat16 transformer in a folder; its blocks are repeated and an MLP is replaced."""
    build_tiny_model("pixart").to(torch.bfloat16).save_pretrained(home / "tiny")
    operations = [
        'repeat: {layers: "transformer_blocks[1]", times: 2}',
        'replace: {component: "transformer_blocks[3].ff", with: zero}',
    ]
    return prune(home, "tiny-pruned", home / "tiny", operations)


@pytest.fixture(scope="module")
def single(home):
    """A tiny SD3 as one file in its authors' layout."""
    (home / "original").mkdir()
    path = home / "original" / "sd3.safetensors"
    original_layouts.save_original(build_tiny_model("sd3"), path)
    return prune(home, "sd3-pruned", path, ['skip: "transformer_blocks[1]"'])


@pytest.fixture(params=["pipeline", "transformer", "single"])
def written(request):
    return request.getfixturevalue(request.param)


def card_of(folder):
    return ModelCard((folder / "README.md").read_text())


def code_of(folder):
    """The Python of a card."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    return code


def test_the_metadata_is_what_the_hub_reads(written):
    folder, _ = written
    head = read_card_head(folder / "README.md")
    assert card_of(folder).data.to_dict() == head
    assert head["library_name"] == "diffusers" and head["tags"][0] == "layer-surgery"


def test_licence_language_and_conditions_are_those_of_the_base_model(pipeline):
    folder, _ = pipeline
    head, base = read_card_head(folder / "README.md"), yaml.safe_load(BASE_CARD.split("---")[1])
    carried = ["license", "license_name", "license_link", "language", "pipeline_tag", "base_model"]
    carried += ["extra_gated_prompt", "extra_gated_fields"]
    assert {key: head[key] for key in carried} == {key: base[key] for key in carried}
    assert set(head) == {*carried, "library_name", "tags"}
    assert head["tags"] == ["layer-surgery", "pruned"]
    assert (folder / head["license_link"]).read_text() == "Be kind."
    assert "- licence: flux-1-dev-non-commercial-license\n" in (folder / "README.md").read_text()


def test_without_its_pipeline_a_transformer_keeps_licence_and_card(home, pipeline):
    folder, _ = prune(home, "alone", home / "models" / "base", [], transformer_only=True)
    assert read_card_head(folder / "README.md")["license_name"] == "flux-1-dev-non-commercial-license"
    assert (folder / "LICENSE.md").read_text() == "Be kind."
    named, _ = prune(home, "named", home / "models" / "base" / "transformer", [])
    assert read_card_head(named / "README.md")["license_name"] == "flux-1-dev-non-commercial-license"


def test_without_a_card_the_licence_is_said_to_be_unknown(transformer):
    folder, _ = transformer
    assert not {"license", "base_model"} & read_card_head(folder / "README.md").keys()
    assert "- licence: that of the base model, whose card states none\n" in (folder / "README.md").read_text()


def rows_of(folder):
    table = re.findall(r"^\| (\w.*?) \| (.*?) \| (.*?) \| (.*?) \|$", card_of(folder).text, flags=re.MULTILINE)
    return {name: cells for name, *cells in table}


def count_parameters(folder):
    """As torch counts them."""
    count = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118  (it is no dict)
    return count


def test_the_figures_are_those_of_the_files(pipeline, home):
    folder, _ = pipeline
    base = home / "models" / "base"
    counts = [count_parameters(root / "transformer") for root in (base, folder)]
    whole = [count_parameters(root) for root in (base, folder)]
    expected = {
        "transformer, parameters": [counts, " million", 1e6],
        "transformer, size": [[2 * count for count in counts], " MB", 1e6],
        "whole pipeline, parameters": [whole, " million", 1e6],
    }
    rows = rows_of(folder)
    assert list(rows) == [*expected, "whole pipeline, size"]
    for name, (values, unit, size) in expected.items():
        share = f"{100 * (values[1] - values[0]) / values[0]:+.1f}%"
        assert rows[name] == [*(f"{value / size:.2f}{unit}" for value in values), share]
    before, after, _ = rows["whole pipeline, size"]
    assert 12 < float(before.removesuffix(" MB")) < 14 and float(after.removesuffix(" MB")) < 11
    assert "with 8 of its 12 layers" in card_of(folder).text


def test_more_layers_are_more_parameters(transformer):
    folder, _ = transformer
    rows = rows_of(folder)
    assert list(rows) == ["transformer, parameters", "transformer, size"]
    assert all(cells[2].startswith("+") for cells in rows.values())
    assert read_card_head(folder / "README.md")["tags"] == ["layer-surgery", "edited"]


def test_the_code_of_the_card_runs_as_it_stands(written, monkeypatch):
    folder, _ = written
    monkeypatch.chdir(folder.parent)
    names = {}
    exec(code_of(folder), names)
    kind = {"pruned": DiffusionPipeline, "tiny-pruned": PixArtTransformer2DModel, "sd3-pruned": SD3Transformer2DModel}
    loaded = names["pipe" if folder.name == "pruned" else "transformer"]
    assert isinstance(loaded, kind[folder.name])
    dtypes = {"pruned": torch.float16, "tiny-pruned": torch.bfloat16, "sd3-pruned": torch.float32}
    assert loaded.dtype == dtypes[folder.name]
    model = loaded.transformer if folder.name == "pruned" else loaded
    assert len(model.transformer_blocks) == {"pruned": 8, "tiny-pruned": 6, "sd3-pruned": 4}[folder.name]


def test_the_code_of_a_variant_names_it(home, monkeypatch):
    build_tiny_model("pixart").to(torch.float16).save_pretrained(home / "half", variant="fp16")
    folder, _ = prune(home, "half-pruned", home / "half", ['skip: "transformer_blocks[1]"'], variant="fp16")
    monkeypatch.chdir(home)
    names = {}
    exec(code_of(folder), names)
    assert names["transformer"].dtype == torch.float16
    assert "--variant fp16\n" in (folder / "README.md").read_text()


def test_nothing_tells_of_this_machine(written):
    folder, _ = written
    for path in folder.rglob("*"):
        if path.suffix in (".md", ".json", ".yaml"):
            assert SECRET not in path.read_text(), path.name
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                assert SECRET not in json.dumps(file.metadata()), path.name


def test_the_published_spec_is_a_spec_of_the_same_plan(written, home):
    """Only where its model lies was left out."""
    folder, pruned = written
    result = CliRunner().invoke(app, ["check", str(folder / "spec.yaml"), "--model", str(pruned.prepared.source.name)])
    assert result.exit_code == 0, result.stderr
    text = (folder / "spec.yaml").read_text()
    assert f"```yaml\n{text}```" in (folder / "README.md").read_text()
    manifest = json.loads((folder / "surgery.json").read_text())
    assert plan_spec_file(folder / "spec.yaml", model=pruned.prepared.source.name).plan.hash == manifest["plan"]


def test_the_command_of_the_card_makes_the_same_files(home, pipeline, monkeypatch):
    folder, _ = pipeline
    (line,) = re.findall(r"```bash\n(.*?)\n```", (folder / "README.md").read_text())
    monkeypatch.chdir(home / "models")  # where the base model has the name that the spec gives it
    shutil.copyfile(folder / "spec.yaml", "spec.yaml")
    program, *arguments = shlex.split(line)
    assert program == "surgery"
    result = CliRunner().invoke(app, [*arguments, "--verify", "structure"])
    assert result.exit_code == 0, result.stderr
    again = home / "models" / "pruned"
    assert again.joinpath("README.md").read_text() == folder.joinpath("README.md").read_text()
    name = "transformer/diffusion_pytorch_model.safetensors"
    assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert f"diffusers {diffusers.__version__}" in (again / "README.md").read_text()


def facts(plan="model SD3Transformer2DModel\ntransformer_blocks[4]: 0 2:4\n", **changed):
    """What a small card is written from."""
    plan = plan_from_text(plan)
    base = Identity("owner/tiny", "SD3Transformer2DModel", "0" * 64, "1" * 40, {})
    given = {
        "name": "pruned",
        "title": None,
        "spec_text": "surgery: v1\n",
        "plan_hash": plan.hash,
        "parts": {
            "transformer": TransformerFacts(
                plan, base, Size(11_901_408_320, 23_802_816_640), Size(9_000, 999), ("checked: all of it",)
            )
        },
        "base_card": {"license": "mit"},
        "rest": None,
        "loading": "pass",
        "command": "surgery compile spec.yaml",
        "versions": {"surgery": "0.1.0", "torch": "2.11"},
    }
    return CardFacts(**{**given, **changed})


CARD = f"""---
license: mit
base_model: owner/tiny
library_name: diffusers
tags:
- layer-surgery
- pruned
---

# pruned

The `SD3Transformer2DModel` of [owner/tiny](https://huggingface.co/owner/tiny) with 3 of its 4 layers, changed as below by layer surgery. It was not trained again, and needs no code of its own: stock diffusers loads it.

| | before | after | change |
|---|---:|---:|---:|
| transformer, parameters | 11.90 billion | 9.00 thousand | -100.0% |
| transformer, size | 23.80 GB | 999 bytes | -100.0% |

## What was changed

- `transformer_blocks` (4 layers): removed layer 1; what runs now, in layers of the base model (ranges without their ends): `0 2:4`

## How to load it

```python
pass
```

`pruned` is this folder; on the hub, write its id instead. `DiffusionPipeline.from_pretrained("owner/tiny", transformer=transformer)` draws with it.

## Limits

- Nothing was trained after the surgery: expect pictures of lower quality than those of the base model, the more so the more was removed. Look at pictures of your own prompts before relying on it; fine-tuning may win some back.
- Blocks are numbered anew: an adapter (LoRA) made for the base model fits when `surgery remap` has renumbered it by `spec.yaml`.
- Uses, limits and biases are those of the base model; so is its licence, with its conditions.

## How it was checked

- all of it

These checks say that the surgery was carried out exactly, and nothing of how the pictures look.

## How to make it again

With `spec.yaml` from this folder (layer-surgery 0.1.0, torch 2.11):

```bash
surgery compile spec.yaml
```

```yaml
surgery: v1
```

## Where it comes from

- base model: [owner/tiny](https://huggingface.co/owner/tiny), revision `{"1" * 40}`
- licence: mit
- plan: `{facts().plan_hash}` (`plan.json`)
"""  # noqa: E501  (a paragraph is a line)


def test_a_card_as_a_whole():
    assert write_card(facts()) == CARD


def test_where_a_component_has_pickles_the_parameters_of_the_pipeline_are_not_known():
    text = write_card(facts(rest=Size(None, 1_000_000)))
    assert "| whole pipeline, size | 23.80 GB | 1.00 MB | -100.0% |" in text
    assert "whole pipeline, parameters" not in text


def test_a_plan_that_changes_nothing_says_so():
    text = write_card(facts(plan="model SD3Transformer2DModel\ntransformer_blocks[4]: 0:4\n"))
    assert "- nothing: the plan leaves the model as it is\n" in text
    assert "Nothing was trained" not in text and "adapter" not in text


@pytest.mark.parametrize(
    "title",
    [
        "Fewer: layers",
        "- [1, 2]",
        "two\nlines\n---\n",
        "# a heading",
        "'quoted' \"twice\"",
        "ends with:",
        "![seen](http://there) <script>",
        "\u00e4\u00f6 \U0001f600",
    ],
)
def test_no_title_breaks_the_card(title):
    text = write_card(facts(title=title, base_card={"license": "other", "license_name": title, "language": title}))
    assert ModelCard(text).data.license_name == title
    heading = next(line for line in text.splitlines() if line.startswith("# "))
    assert heading.replace("\\", "") == f"# {' '.join(title.split())}".replace("\\", "")
    assert not re.search(r"(?<!\\)[<\[`]", heading)
    assert text.count("\n## ") == CARD.count("\n## ")


def test_a_spec_with_fences_of_its_own_stays_in_its_fence():
    text = write_card(facts(spec_text="# ```yaml\n# ````\nsurgery: v1\n"))
    assert "\n`````yaml\n# ```yaml\n# ````\nsurgery: v1\n`````\n" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no head",
        "---\nlicense: mit\n",
        "---\n- a list\n---\n",
        "---\n{broken\n---\n",
        "---\n&a [*a]\n---\n",
        b"\xff\xfe",
    ],
)
def test_a_base_card_without_a_sound_head_gives_none(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_card_head(path) in ({}, {"license": "mit"})
    assert read_card_head(tmp_path / "absent.md") == {}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_head_is_read_with_any_line_ends(tmp_path, line_end):
    path = tmp_path / "README.md"
    path.write_bytes(BASE_CARD.replace("\n", line_end).encode())
    assert read_card_head(path)["license_link"] == "LICENSE.md"


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("owner/tiny", "owner/tiny"),
        ("demo", "demo"),
        ("/models/mine/tiny", "tiny"),
        ("/models/mine/tiny/", "tiny"),
        ("./models/tiny", "tiny"),
        ("~/tiny", "tiny"),
        ("models/my/tiny", "tiny"),
        ("with a space/tiny", "tiny"),
        (".", Path.cwd().name),
    ],
)
def test_of_a_path_only_its_last_part_is_public(name, public):
    assert public_name(name) == public


def test_a_relative_path_that_looks_like_a_hub_id_is_one_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert public_name("models/tiny") == "models/tiny"
    os.makedirs("models/tiny")  # noqa: PTH103  (relative to here)
    assert public_name("models/tiny") == "tiny"


def test_paths_are_hidden_where_they_stand_as_a_whole():
    text = 'model: "/m/tiny"  # not /m/tiny-2, nor /x/m/tiny; see /m/tiny.\n'
    assert hide_paths(text, ["/m/tiny"]) == 'model: "tiny"  # not /m/tiny-2, nor /x/m/tiny; see tiny.\n'
