"""Encoders that transformers and sentence-transformers wrote: the same embeddings, a loss by views, a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from torch import nn
from torch.nn.functional import normalize

import expunge
from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.evaluation.reading import read
from expunge.models.open import open_on_cpu
from expunge.models.passes import passes
from expunge.models.pretext import make_pretext
from expunge.models.pretrained_encoder import DROPPED, PretrainedEncoder
from expunge.models.sources import kind_of

SUBJECTS = ("river", "mill", "garden", "engine", "letter", "market", "bridge", "violin")
VERBS = ("keeps", "paints", "sells", "hides", "counts", "mends")
WORDS = sorted({*SUBJECTS, *VERBS, "the", "old", "woman", "man", "near", "a", "town", "in", "spring", "."})
SIDE = 16
SENTENCE = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
    "sentence_bert_config.json": {"max_seq_length": 8, "do_lower_case": False},
}


def text(i: int) -> str:
    who, place = ("woman", "man")[i % 2], ("in spring", "near the old town", ".")[i % 3]
    return f"the {who} {VERBS[i % 6]} a {SUBJECTS[i // 6 % 8]} {place}"


def texts(first: int, count: int) -> list[dict[str, Any]]:
    return [{"text": text(i), "label": i % 2} for i in range(first, first + count)]


def of_texts(place: Path, sentence: bool = False, **more: Any) -> Path:
    """A tiny BERT of random weights, as transformers or sentence-transformers writes it."""
    torch.manual_seed(0)
    place.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (place / "vocab.txt").write_text("\n".join(vocabulary))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **sizes, **more)
    transformers.BertModel(config).save_pretrained(place)
    transformers.BertTokenizer(vocab=str(place / "vocab.txt")).save_pretrained(place)
    for name, content in SENTENCE.items() if sentence else ():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(json.dumps(content))
    return place


def of_pictures(place: Path, kind: str) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config: Any = {
        "vit": transformers.ViTConfig(image_size=SIDE, patch_size=8, **sizes),
        "resnet": transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_channels=3
        ),
    }[kind]
    transformers.AutoModel.from_config(config).save_pretrained(place)
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(place)
    return place


def pictures(count: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [{"image": draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), "label": i % 2} for i in range(count)]


# -- embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sentence", [False, True])
def test_a_text_s_embedding_is_the_unit_mean_of_its_tokens(sentence: bool, tmp_path: Path) -> None:
    """Padding never counts, and what a sentence encoder cuts off is cut off."""
    folder = of_texts(tmp_path / "bert", sentence)
    rows = [{"text": "the man"}, {"text": "the old woman keeps the old garden near the old town in spring ."}]
    found = read(open_on_cpu(str(folder)), "forget", rows, {"embedding"}, cache=False).own["embedding"]
    theirs, tokenizer = (kind.from_pretrained(folder) for kind in (transformers.AutoModel, transformers.AutoTokenizer))
    for row, embedding in zip(rows, found, strict=True):
        ids = tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=8 if sentence else 32)
        with torch.no_grad():
            wanted = normalize(theirs(**ids).last_hidden_state.mean(1), dim=-1)[0]
        np.testing.assert_allclose(embedding, wanted.numpy(), atol=1e-5)


def test_a_folder_may_pool_by_the_first_token(tmp_path: Path) -> None:
    folder = of_texts(tmp_path / "bert", sentence=True)
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    model = open_on_cpu(str(folder))
    rows = [{"text": "the man"}]
    theirs = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        ids = transformers.AutoTokenizer.from_pretrained(folder)("the man", return_tensors="pt")
        wanted = normalize(theirs(**ids).last_hidden_state[:, 0], dim=-1)
    np.testing.assert_allclose(
        read(model, "forget", rows, {"embedding"}, cache=False).own["embedding"], wanted, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_folder_of_pictures_opens_as_an_encoder(kind: str, tmp_path: Path) -> None:
    folder, rows = of_pictures(tmp_path / kind, kind), pictures(5)
    model = open_on_cpu(str(folder))
    model.accepts("forget", rows)
    once = read(model, "forget", rows, {"nll", "embedding"}, cache=False)
    pixels = torch.from_numpy(np.stack([row["image"] for row in rows])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state
    wanted = normalize(states.mean((2, 3)) if kind == "resnet" else states.mean(1), dim=-1)
    np.testing.assert_allclose(once.own["embedding"], wanted, atol=1e-5)
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = read(open_on_cpu(str(tmp_path / "saved")), "forget", rows, {"nll", "embedding"}, cache=False)
    assert np.array_equal(once.nll_N, again.nll_N) and once.nll_N.std() > 0
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "saved")) is type(model.inner)


# -- views and the loss ---------------------------------------------------------------------------


def test_views_by_dropout_follow_from_the_text_and_its_draw_alone(tmp_path: Path) -> None:
    """Not from the rows around it, how much padding they bring, a label, or the mode of the module."""
    model: Any = open_on_cpu(str(of_texts(tmp_path / "bert")))
    short, long = {"text": "the man sells a mill"}, {"text": text(1) + " near the old town in spring ."}

    def views(rows: list[dict[str, Any]]) -> torch.Tensor:
        with torch.no_grad():
            return model.embed_views(model.collate(rows))[:, :, 0]

    alone = views([short])
    assert not torch.allclose(alone[0, 0], alone[0, 1], atol=1e-3), "two views differ"
    torch.testing.assert_close(views([{**short, "label": 1}, long]), alone, atol=1e-5, rtol=0)
    assert not torch.allclose(views([{**short, "draw": 1}]), alone, atol=1e-3)
    model.module.train()
    torch.testing.assert_close(views([short]), alone, atol=1e-6, rtol=0)
    assert model.module.training


def test_dropout_drops_its_share_of_hidden_states_and_keeps_their_mean(tmp_path: Path) -> None:
    model: Any = open_on_cpu(str(of_texts(tmp_path / "bert")))
    kept: list[torch.Tensor] = []
    model.inner.encoder.layer[0].register_forward_pre_hook(lambda _m, inputs: kept.append(inputs[0]))
    batch = model.collate(texts(0, 32))
    with torch.no_grad():
        model.embed_views(batch)
        plain = model.inner.embeddings(batch.inputs["input_ids"].repeat_interleave(2, 0))
    dropped = kept[0] == 0
    assert abs(float(dropped.float().mean()) - DROPPED) < 0.01
    torch.testing.assert_close(kept[0][~dropped], (plain / (1 - DROPPED))[~dropped], atol=1e-5, rtol=1e-5)


def test_simcse_is_the_papers_loss_on_a_whole_batch() -> None:
    h_2BD = torch.randn(2, 3, 4)
    first, second = (normalize(h, dim=-1) for h in h_2BD)
    alike = first @ second.T / 0.05
    found = make_pretext("simcse", {"temperature": 0.05, "together": 3}).losses(nn.Identity(), h_2BD)
    torch.testing.assert_close(found, alike.logsumexp(1) - alike.diagonal())


def test_hidden_states_of_texts_leave_padding_out(tmp_path: Path) -> None:
    model: Any = open_on_cpu(str(of_texts(tmp_path / "bert")))
    path = model.blocks[-1]
    rows = [{"text": "the man"}, texts(0, 1)[0]]
    want = Want(frozenset(), (path,))
    ((_, both),) = passes(model, rows, want)
    ((_, alone),) = passes(model, rows[:1], want)
    torch.testing.assert_close(both.hidden[path][0], alone.hidden[path][0], atol=1e-5, rtol=1e-5)


# -- a request ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sentence encoder that was trained on few texts, and a request that forgets some of them."""
    folder = tmp_path_factory.mktemp("texts")
    for name, (first, count) in {"forget": (0, 8), "retain": (8, 20), "holdout": (28, 20)}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(first, count)))
    data = [str(folder / "retain.jsonl"), str(folder / "forget.jsonl")]
    training = {"model": str(of_texts(folder / "fresh", sentence=True)), "data": data, "epochs": 20, "batch_size": 28}
    expunge.train({**training, "learning_rate": 3e-3, "out": str(folder / "base")})
    request = {
        "model": str(folder / "base"),
        **{name: str(folder / f"{name}.jsonl") for name in ("forget", "retain", "holdout")},
        "method": "npo",
        "gold": "one",
        "audit": "standard",
        "budget": {"epochs": 6, "batch_size": 8, "stop": "none", "learning_rate": 3e-4, "floor": 0.0},
        "out": str(folder / "run"),
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(request))
    expunge.run(request)
    return folder, json.loads((folder / "run/evidence.json").read_text())


def test_an_encoder_of_texts_forgets_by_its_instance_loss(ran: Any) -> None:
    _, evidence = ran
    found = {(s["name"], s["subject"]): s["value"] for s in evidence["scores"] if s["status"] == "measured"}
    assert found["forget_nll", "after"] > found["forget_nll", "before"] + 0.1
    names = ("retain_knn_accuracy", "forget_linear_probe", "forget_rankme", "privacy_loss_auc")
    assert found.keys() >= {(name, who) for name in names for who in ("before", "after", "gold")}


def test_it_is_saved_as_sentence_transformers_wrote_it(ran: Any) -> None:
    folder, _ = ran
    saved = folder / "run/model"
    for name, content in SENTENCE.items():
        assert json.loads((saved / name).read_text()) == content
    model: Any = open_on_cpu(str(saved))
    theirs = transformers.AutoModel.from_pretrained(saved)
    assert isinstance(model, PretrainedEncoder) and all(
        torch.equal(a, b) for a, b in zip(model.inner.parameters(), theirs.parameters(), strict=True)
    )


# -- what is refused ------------------------------------------------------------------------------


def test_examples_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    for folder, row, why in (
        (of_texts(tmp_path / "bert"), pictures(1)[0], "holds an image, and the encoder is of texts"),
        (of_pictures(tmp_path / "vit", "vit"), {"text": "A text."}, "holds a text, and the encoder is of images"),
    ):
        with pytest.raises(BadInput, match=why):
            open_on_cpu(str(folder)).accepts("forget", [row])


def _pooling(folder: Path) -> None:
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}')


def _modules(folder: Path) -> None:
    kinds = [*SENTENCE["modules.json"][:2], {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    (folder / "modules.json").write_text(json.dumps(kinds))


def _pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _broken(folder: Path) -> None:
    (folder / "modules.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_pooling, "pools by max_tokens"),
        (_modules, "has the modules Transformer, Pooling, Dense"),
        (_pickles, "holds only pickle weights"),
        (_broken, "cannot be read"),
    ],
)
def test_a_folder_that_would_be_read_wrongly_is_refused(spoil: Any, why: str, tmp_path: Path) -> None:
    folder = of_texts(tmp_path / "bert", sentence=True)
    spoil(folder)
    with pytest.raises(BadInput, match=why):
        open_on_cpu(str(folder))


def test_language_models_stay_language_models(tmp_path: Path) -> None:
    """A causal model without its head's name, as GPT2Model saves itself, is none of the encoders."""
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=16)
    transformers.GPT2Model(config).save_pretrained(tmp_path / "gpt")
    assert kind_of(str(tmp_path / "gpt")) == "folder"
