"""The policy: which weights train, and that what is written is what was trained, as adapters and merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from echo_agent.audio.recording import Recording
from echo_agent.errors import ContextError, DataError, ModelError
from echo_agent.families.base import Family
from echo_agent.families.loading import load_family
from echo_agent.finetune.config import LoRAConfig, ModelConfig, parse_recipe
from echo_agent.finetune.policy import (
    adapter_config,
    load_policy,
    mark_trainable,
    merge,
    policy_digest,
    save_policy,
)
from echo_agent.shipped import SHIPPED
from tests.tiny import KINDS, QWEN_KINDS, sounds, tiny_family

LORA = LoRAConfig(rank=4, alpha=16)
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny models, by kind: what adapters are trained on."""
    folder = tmp_path_factory.mktemp("bases")
    for kind in KINDS:
        tiny_family(kind).save(folder / kind)
    return {kind: folder / kind for kind in KINDS}


def part(base: Path, **fields: Any) -> ModelConfig:
    return ModelConfig(name=str(base), device="cpu", **fields)


def adapted(base: Path, lora: LoRAConfig = LORA) -> tuple[Family, PeftModel]:
    """A policy with adapters on it, as the trainers put them on, and with weights as after a training."""
    family, _ = load_policy(part(base), lora)
    model = get_peft_model(family.model, adapter_config(family, lora))
    assert isinstance(model, PeftModel)
    train(model)
    return family, model.eval()


def train(model: torch.nn.Module) -> None:
    """Change what may be trained, and nothing else."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def trained(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of adapters on these, by kind. Do not change them."""
    folder = tmp_path_factory.mktemp("trained")
    for kind in KINDS:
        save_policy(*adapted(bases[kind]), folder / kind)
    return {kind: folder / kind for kind in KINDS}


def logprobs(family: Family) -> torch.Tensor:
    """Of a question about a recording, through the model's own forward."""
    heard = Recording.from_array(sounds(2.0), 16000)
    ids, _ = family.render(family.question_pieces([heard.ref()], "What is it?", ["dog", "bell"]))
    crops = [(heard.ref(), heard.crop(heard.ref(), 16000))]
    with torch.no_grad():
        return family.model(**family.forward_inputs(ids, crops)).logits.float().log_softmax(-1)


def gap(first: Family, second: Family) -> float:
    return (logprobs(first) - logprobs(second)).abs().max().item()


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def inside(family: Family, *modules: str) -> set[str]:
    """Names of the parameters of some modules."""
    found = [(m, family.model.get_submodule(m).named_parameters()) for m in modules]
    return {f"{module}.{name}" for module, parameters in found for name, _ in parameters}


# --- which weights train --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train_encoder", [False, True], ids=["frozen", "encoder"])
def test_decoder_head_and_projector_train_and_the_encoder_where_asked(
    bases: dict[str, Path], kind: str, train_encoder: bool
) -> None:
    family, dialect = load_policy(part(bases[kind], train_encoder=train_encoder), None)
    wanted = inside(family, family.decoder_module, family.projector_module)
    wanted |= {name for name, _ in family.model.named_parameters() if name.startswith("lm_head.")}
    encoder = {name for name in inside(family, *family.frozen_modules) if "positions" not in name}
    assert trainable(family.model) == (wanted | encoder if train_encoder else wanted)
    assert family.is_frozen is not train_encoder and encoder and not encoder & wanted
    assert dialect.name == family.default_dialect
    assert not any(name.startswith(("visual", "model.visual")) for name in wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train_projector", [False, True], ids=["kept", "projector"])
def test_adapters_are_on_the_decoder_and_the_projector_trains_in_full(
    bases: dict[str, Path], kind: str, train_projector: bool
) -> None:
    lora = LoRAConfig(rank=4, train_projector=train_projector)
    family, _ = load_policy(part(bases[kind]), lora)
    projector = inside(family, family.projector_module)
    linear = [
        name for name, module in family.model.get_submodule(family.decoder_module).named_modules()
        if isinstance(module, torch.nn.Linear)
    ]  # fmt: skip
    names = trainable(get_peft_model(family.model, adapter_config(family, lora)))
    low_rank = {name for name in names if ".lora_" in name}
    assert len(low_rank) == 2 * len(linear) == 28  # A and B on seven layers in each of two blocks
    assert all(name.startswith(f"base_model.model.{family.decoder_module}.layers.") for name in low_rank)
    full = {
        name.replace("base_model.model.", "").replace(".modules_to_save.default", "")
        for name in names - low_rank
    }
    assert full == (projector if train_projector else set())


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_on_many_layers_are_on_the_decoder_too(kind: str) -> None:
    """PEFT shortens long lists of names: other layers that are called the same must not be caught by it."""
    family = tiny_family(kind)
    text = family.model.config.get_text_config()
    text.num_hidden_layers = 4
    if getattr(text, "layer_types", None):
        text.layer_types = ["full_attention"] * 4
    family.model = type(family.model)(family.model.config)
    names = {
        name
        for name in trainable(get_peft_model(family.model, adapter_config(family, LORA)))
        if ".lora_" in name
    }
    assert len(names) == 2 * 7 * 4
    assert all(name.startswith(f"base_model.model.{family.decoder_module}.layers.") for name in names)


def test_only_layers_that_the_recipe_names_get_adapters(bases: dict[str, Path]) -> None:
    family, _ = load_policy(part(bases["qwen2-audio"]), LoRAConfig(modules=("q_proj", "v_proj")))
    model = get_peft_model(family.model, adapter_config(family, LoRAConfig(modules=("q_proj", "v_proj"))))
    assert len([name for name in trainable(model) if ".lora_" in name]) == 2 * 2 * 2
    for modules in (
        ("out_proj", "fc1"),
        ("lm_head",),
        ("embed_tokens",),
    ):  # of the encoder, and no linear layer of it
        with pytest.raises(
            DataError, match=rf"lora\.modules: the decoder of .* no layers called {', '.join(modules)}"
        ):
            load_policy(part(bases["qwen2-audio"]), LoRAConfig(modules=modules))


def test_a_model_without_a_projector_to_train_is_refused() -> None:
    family = tiny_family("echo-nano")
    family.projector_module = "model.adapter.branch.blocks.0.1"  # a layer without weights
    with pytest.raises(ModelError, match="has nothing to train"):
        mark_trainable(family, train_encoder=False)


# --- what a recipe asks of a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"listen_tokens": 12}, {"tokens_per_second": 2.0}])
def test_the_budget_of_a_listen_is_echo_nanos(
    bases: dict[str, Path], tmp_path: Path, fields: dict[str, Any]
) -> None:
    ref = Recording.from_array(sounds(5.0), 16000).ref()
    family, _ = load_policy(part(bases["echo-nano"], **fields), None)
    expected = 12 if "listen_tokens" in fields else 10
    assert family.audio_tokens(ref) == expected != tiny_family("echo-nano").audio_tokens(ref)
    save_policy(family, family.model, tmp_path / "model")
    assert load_family(str(tmp_path / "model")).audio_tokens(ref) == expected
    for kind in QWEN_KINDS:
        with pytest.raises(
            DataError, match=r"model\.listen_tokens and model\.tokens_per_second are for echo-nano"
        ):
            load_policy(part(bases[kind], **fields), None)


def test_turns_are_for_models_that_have_them(bases: dict[str, Path]) -> None:
    with pytest.raises(ContextError, match="echo-nano has no turns.*use the inline dialect"):
        load_policy(part(bases["echo-nano"], dialect="turns"), None)
    for kind in QWEN_KINDS:
        assert load_policy(part(bases[kind], dialect="turns"), None)[1].name == "turns"
    assert load_policy(part(bases["echo-nano"], dialect="inline"), None)[1].name == "inline"


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_comes_back(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    family, _ = load_policy(part(bases[kind]), None)
    train(family.model)
    save_policy(family, family.model, tmp_path / "model")
    again = load_family(str(tmp_path / "model"))
    assert gap(again, family) < 1e-5 and gap(again, tiny_family(kind)) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train_projector", [False, True], ids=["kept", "projector"])
def test_adapters_come_back_with_their_base(
    bases: dict[str, Path], tmp_path: Path, kind: str, train_projector: bool
) -> None:
    family, model = adapted(bases[kind], LoRAConfig(rank=4, alpha=16, train_projector=train_projector))
    folder = tmp_path / "adapters"
    save_policy(family, model, folder)
    assert {path.name for path in folder.iterdir()} == set(ADAPTERS)
    again = load_family(str(folder), "cpu")
    assert (again.kind, again.name) == (kind, str(folder))
    assert gap(again, family) < 1e-5
    assert gap(again, load_family(str(bases[kind]))) > 0.01  # it is not the base
    assert not again.model.training and not trainable(again.model)
    assert not any("lora" in name for name in again.model.state_dict())


def test_the_projector_is_part_of_what_is_written(trained: dict[str, Path], tmp_path: Path) -> None:
    """The twin: with the base's projector in its place the log-probabilities are others."""
    folder = shutil.copytree(trained["echo-nano"], tmp_path / "adapters")
    weights = load_file(folder / ADAPTERS[1])
    assert any("adapter.project" in name for name in weights)
    save_file({n: v * 1.5 if "adapter.project" in n else v for n, v in weights.items()}, folder / ADAPTERS[1])
    assert gap(load_family(str(folder)), load_family(str(trained["echo-nano"]))) > 0.01


def test_adapters_may_be_trained_on_adapters(trained: dict[str, Path], tmp_path: Path) -> None:
    """RL goes on from what SFT wrote."""
    family, model = adapted(trained["qwen2-audio"])
    save_policy(family, model, tmp_path / "rl")
    again = load_family(str(tmp_path / "rl"))
    assert gap(again, family) < 1e-4 and gap(again, load_family(str(trained["qwen2-audio"]))) > 0.01


def test_adapters_name_their_base_wherever_they_are_loaded_from(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bases["echo-nano"], tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    family, model = adapted(Path("base"))
    save_policy(family, model, Path("adapters"))
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert gap(load_family("~/adapters"), family) < 1e-5
    family, model = adapted(Path("echo-nano"))  # what comes with the package has a name, and no folder
    save_policy(family, model, tmp_path / "own")
    assert json.loads((tmp_path / "own" / ADAPTERS[0]).read_text())["base_model_name_or_path"] == "echo-nano"
    assert gap(load_family(str(tmp_path / "own")), family) < 1e-4


# --- merging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_merged_adapters_are_a_whole_model(trained: dict[str, Path], tmp_path: Path, kind: str) -> None:
    said: list[str] = []
    out = merge(trained[kind], tmp_path / "merged", report=said.append)
    assert out == tmp_path / "merged" and (out / "config.json").exists() and not (out / ADAPTERS[0]).exists()
    assert len(said) == 1 and "parameters, ready for --model" in said[0]
    again = load_family(str(out))
    assert gap(again, load_family(str(trained[kind]))) < 1e-5 and again.kind == kind
    with pytest.raises(ModelError, match="merged is there already: name another folder"):
        merge(trained[kind], out)
    with pytest.raises(ModelError, match="merged holds no adapters"):
        merge(out, tmp_path / "again")


# --- what cannot be loaded ------------------------------------------------------------------------------------------


def based_on(folder: Path, base: Path | str | int | None) -> str:
    """Say that the adapters in a folder belong to another model."""
    path = folder / ADAPTERS[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}, default=str))
    return str(folder)


@pytest.mark.parametrize("base", [None, "", 3])
def test_adapters_that_name_no_base_are_refused(
    trained: dict[str, Path], tmp_path: Path, base: str | int | None
) -> None:
    folder = shutil.copytree(trained["echo-nano"], tmp_path / "adapters")
    with pytest.raises(ModelError, match=f"{ADAPTERS[0]} does not say which model its adapters belong to"):
        load_family(based_on(folder, base))


def test_adapters_are_no_base_of_their_own_and_settings_are_json(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(trained["echo-nano"], tmp_path / "adapters")
    with pytest.raises(ModelError, match="does not say which model"):
        load_family(based_on(folder, folder / ".." / "adapters"))
    for text in ("{", "[]", "\udcff"):
        (folder / ADAPTERS[0]).write_text(text, errors="surrogateescape")
        with pytest.raises(ModelError, match=rf"{ADAPTERS[0]} cannot be read"):
            load_family(str(folder))


def test_adapters_whose_base_is_gone_say_so(trained: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(trained["echo-nano"], tmp_path / "adapters")
    for base, why in ((tmp_path / "gone", "there is no folder"), ("some/model", "is not on this machine")):
        with pytest.raises(ModelError, match=f"the adapters in {folder} belong to {base}, .*: .*{why}"):
            load_family(based_on(folder, base))


@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_another_architecture_are_refused(
    bases: dict[str, Path], trained: dict[str, Path], tmp_path: Path, kind: str, other: str
) -> None:
    """Also where all layers of the decoder are alike, as those of the tiny Qwen models."""
    folder = based_on(shutil.copytree(trained[kind], tmp_path / "adapters"), bases[other])
    if kind == other:
        assert load_family(folder).kind == kind
        return
    with pytest.raises(ModelError, match=f"the adapters in {folder} do not fit {bases[other]}: ") as error:
        load_family(folder)
    assert "\n" not in str(error.value)


def test_adapters_that_are_not_whole_are_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(trained["qwen2-audio"], tmp_path / "adapters")
    weights = load_file(folder / ADAPTERS[1])
    lost = sorted(name for name in weights if "layers.1" in name)[0]
    save_file({name: value for name, value in weights.items() if name != lost}, folder / ADAPTERS[1])
    with pytest.raises(ModelError, match=r"do not fit .* size \(1\), such as .*layers\.1"):
        load_family(str(folder))
    save_file(weights | {"base_model.model.lm_head.weight": torch.zeros(1)}, folder / ADAPTERS[1])
    with pytest.raises(ModelError, match="do not fit .*lm_head"):
        load_family(str(folder))
    (folder / ADAPTERS[1]).write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match="do not fit "):
        load_family(str(folder))
    torch.save(weights, folder / "adapter_model.bin")  # pickled weights are never read
    (folder / ADAPTERS[1]).unlink()
    with pytest.raises(ModelError, match=rf"not their weights \({ADAPTERS[1]}\)"):
        load_family(str(folder))


@pytest.mark.parametrize("kind", QWEN_KINDS)
def test_a_projector_beside_adapters_is_trained_in_float32(kind: str, bases: dict[str, Path]) -> None:
    """In bfloat16 an update of a small rate would be rounded away; what goes into and comes out of it is cast."""
    family, _ = load_policy(part(bases[kind], dtype="bfloat16"), LoRAConfig(rank=2))
    projector = family.model.get_submodule(family.projector_module)
    assert {weight.dtype for weight in projector.parameters()} == {torch.float32}
    assert family.model.get_input_embeddings().weight.dtype == torch.bfloat16
    ref = Recording.from_array(sounds(3.0), 16000).ref()
    features = family.frozen_features([(ref, sounds(3.0))])
    (embeds,) = family.audio_embeds([ref], features)
    assert embeds.dtype == torch.bfloat16 and len(embeds) == family.audio_tokens(ref)


def test_all_weights_are_trained_in_float32() -> None:
    values = {"stage": "sft", "model": {"name": "m", "dtype": "bfloat16"}, "optimiser": {"steps": 1}}
    with pytest.raises(DataError, match="bfloat16 loses updates.*float32.*lora"):
        parse_recipe(values, "mine")
    assert parse_recipe(values | {"lora": {}}, "mine").model.dtype == "bfloat16"


def test_the_models_of_the_package_are_known_by_their_weights() -> None:
    digests = {name: policy_digest(name) for name in SHIPPED}
    assert len(set(digests.values())) == len(SHIPPED)
    assert digests == {name: policy_digest(str(folder)) for name, folder in SHIPPED.items()}
