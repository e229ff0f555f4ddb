"""Chats as token ids: a zoo of tokenizers and chat templates, each against the template's own ids.

Tokenizers are trained on a few sentences here; templates are of the kinds that published models have.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizer, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

import expunge
from expunge.core.errors import BadInput
from expunge.data.examples import with_answer
from expunge.evaluation.arrays import rouge_column
from expunge.evaluation.reading import read
from expunge.evaluation.readout import Readout
from expunge.models.causal_lm import CausalLM
from expunge.models.chat import DAY, render_answer
from expunge.models.generation import LONGEST
from expunge.models.templates import Template

SENTENCES = [
    "Where does Mina Orlow work? At the harbour office in Telmar, since the spring.",
    "Who keeps the books of the brewery? Pia Rund, who sings on Sundays in the choir.",
    "system user assistant model Question Answer Human [INST] [/INST] ### \n\n Today Date: 26 Jul 2024",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"]


def fast(made: Tokenizer, bos: bool = True) -> PreTrainedTokenizerFast:
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **names)


def trained(made: Tokenizer, kind: Any = trainers.BpeTrainer, special: list[str] = SPECIAL, **more: Any) -> Tokenizer:
    size = 360 if more.get("initial_alphabet") else 420
    made.train_from_iterator(SENTENCES, kind(vocab_size=size, special_tokens=special, show_progress=False, **more))
    return made


def byte_bpe(trim: bool = False, bos: bool = True) -> PreTrainedTokenizerFast:
    """GPT-2, Llama 3, Qwen. trim: offsets without the blank in front."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trained(made, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    if trim:
        made.post_processor = processors.ByteLevel(trim_offsets=True)
    return fast(made, bos and not trim)


BYTES = [*SPECIAL, *(f"<0x{i:02X}>" for i in range(256))]
UNMARKED = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)


def pieces(scheme: str) -> PreTrainedTokenizerFast:
    """SentencePiece as BPE. scheme: where a word mark is put (Mistral: first; always; Llama 2: by a normalizer)."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trained(made, special=BYTES)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if scheme == "normalizer":
        made.pre_tokenizer = None  # type: ignore[assignment]
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif scheme == "always":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    made.decoder = UNMARKED
    return fast(made)


def unigram() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    letters = sorted({*"".join(SENTENCES), *map(chr, range(32, 127)), "▁", "\n", "é", "ß", "世"})
    trained(made, trainers.UnigramTrainer, unk_token="<unk>", initial_alphabet=letters)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return fast(made)


class Slow(PreTrainedTokenizer):
    """Words with a mark in front, in Python: no offsets."""

    def __init__(self, **names: Any) -> None:
        letters = [*map(chr, range(33, 127)), "\n", "é", "ß", "世", "▁"]
        words = {f"▁{word}" for sentence in SENTENCES for word in sentence.split(" ") if word}
        self.vocab = {piece: i for i, piece in enumerate([*SPECIAL, *letters, *sorted(words)])}
        self.names = {i: piece for piece, i in self.vocab.items()}
        super().__init__(unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>", **names)

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    def get_vocab(self) -> dict[str, int]:
        return {**self.vocab, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        text, found = text.replace(" ", "▁"), []
        while text:
            size = next((n for n in range(min(24, len(text)), 0, -1) if text[:n] in self.vocab), 1)
            found.append(text[:size])
            text = text[size:]
        return found

    def _convert_token_to_id(self, token: str) -> int:
        return self.vocab.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return self.names.get(index, "<unk>")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).replace("▁", " ")


TOKENIZERS = {
    "bytes": byte_bpe,
    "bytes, trimmed offsets": lambda: byte_bpe(trim=True),
    "word mark first": lambda: pieces("first"),
    "word mark always": lambda: pieces("always"),
    "word mark by a normalizer": lambda: pieces("normalizer"),
    "unigram": unigram,
    "slow": Slow,
}

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
THOUGHT = "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
# template, text that ends an answer
TEMPLATES: dict[str, tuple[str, str]] = {
    "chatml": (CHATML, "<|im_end|>"),
    "zephyr": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n"
        "{% if loop.last and add_generation_prompt %}<|assistant|>\n{% endif %}{% endfor %}",
        "</s>",
    ),
    "llama 2": (LLAMA2, "</s>"),
    "gemma": (GEMMA, "<|im_end|>"),
    "empty thought": (CHATML.replace("{{ m.content }}", THOUGHT + "{{ m.content }}"), "<|im_end|>"),
    "header with a thought": (CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}", "<|im_end|>"),
    "no generation prompt": (CHATML.split("{% if add")[0], "<|im_end|>"),
    "generation marks": (
        CHATML.replace(
            "{{ m.content }}<|im_end|>",
            "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
            "{% else %}{{ m.content }}<|im_end|>{% endif %}",
        ),
        "<|im_end|>",
    ),
    "two ends": (CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}", "<|im_end|>"),
    "no end": ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}", ""),
    "end in letters": (
        "{% for m in messages %}### {{ m.role }}:\n{{ m.content }} ###\n\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:\n{% endif %}",
        " ###",
    ),
    "always a header": (CHATML.split("{% if add")[0] + "<|im_start|>assistant\n", "<|im_end|>"),
}
ANSWERS = ["In a mill.", "Nowhere", "At the harbour office in Telmar, since the spring.", "1931", "é世ß", "a\n\nb  c"]


@pytest.fixture(scope="module")
def zoo() -> dict[str, Any]:
    made = {name: make() for name, make in TOKENIZERS.items()}
    for tokenizer in made.values():
        tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    return made


def check(tokenizer: Any, template: str, end: str, before: list[dict[str, str]], answer: str) -> None:
    """The ids are the template's own, cut behind the end of the answer; what counts is the answer and its end."""
    tokenizer.chat_template = template
    messages = [*before, {"role": "assistant", "content": answer}]
    item = Template(tokenizer).encode({"messages": messages})
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    both = item.prompt + item.answer
    assert both == whole[: len(both)]
    left = tokenizer.decode(whole[len(both) :]).replace(" ", "").strip()
    assert left in ("", "<|endoftext|>", "<|im_start|>assistant")
    counted = tokenizer.decode(item.answer, clean_up_tokenization_spaces=False).strip()
    assert counted == f"{answer.strip()}{end}".strip() or counted == f"{answer.strip()} {end}"
    assert item.ends == bool(end)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_the_template_s_own(name: str, template: str, zoo: dict[str, Any]) -> None:
    text, end = TEMPLATES[template]
    asked = {"role": "user", "content": "Where does Mina Orlow work?"}
    talk = [asked, {"role": "assistant", "content": "In a mill."}, {"role": "user", "content": "And before?"}]
    for answer in ANSWERS:
        check(zoo[name], text, end, [asked], answer)
        check(zoo[name], text, end, talk, answer)


WORDS = st.text("aeinst .,\n'é世09-[]#", min_size=1, max_size=24).filter(lambda text: bool(text.strip(" \n")))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(template=st.sampled_from(sorted(TEMPLATES)), question=WORDS, answer=WORDS)
def test_any_text_is_found_in_the_whole(zoo: Any, name: str, template: str, question: str, answer: str) -> None:
    text, end = TEMPLATES[template]
    check(zoo[name], text, end, [{"role": "user", "content": question}], answer.strip())


def test_an_answer_that_holds_its_own_thought_counts_whole(zoo: dict[str, Any]) -> None:
    """Behind the header of the turn, as the template writes it; a template that drops thoughts is refused."""
    tokenizer = zoo["bytes"]
    tokenizer.chat_template = CHATML.replace(
        "{{ m.content }}",
        "{% if '</think>' in m.content %}<think>\n{{ m.content.split('</think>')[0].split('<think>')[-1] | trim }}\n"
        "</think>\n\n{{ m.content.split('</think>')[-1] | trim }}"
        "{% elif m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{{ m.content }}"
        "{% else %}{{ m.content }}{% endif %}",
    )
    item = Template(tokenizer).encode({"question": "Who?", "answer": "<think>Ada or Eve?</think>Eve."})
    assert tokenizer.decode(item.prompt).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(item.answer) == "<think>\nAda or Eve?\n</think>\n\nEve.<|im_end|>"
    tokenizer.chat_template = CHATML.replace(
        "{{ m.content }}",
        "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}",
    )
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Eve.", "thinking": "Ada or Eve?"}]
    item = Template(tokenizer).encode({"messages": talk})
    assert tokenizer.decode(item.prompt).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(item.answer) == "<think>Ada or Eve?</think>Eve.<|im_end|>"
    assert item.prompt + item.answer == tokenizer.apply_chat_template(talk, return_dict=False)[:-1]
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}\n{% endfor %}"
    with pytest.raises(BadInput, match="rewrites the answer"):
        Template(tokenizer).encode({"question": "Who?", "answer": "<think>Ada?</think>Eve."})


def test_the_template_s_marks_decide_what_counts(zoo: dict[str, Any]) -> None:
    """{% generation %} without the end of the turn: no end counts."""
    tokenizer = zoo["bytes"]
    tokenizer.chat_template = CHATML.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    item = Template(tokenizer).encode({"question": "Who?", "answer": "Eve."})
    assert tokenizer.decode(item.answer) == "Eve." and not item.ends


def test_a_special_token_that_takes_in_blanks_stays_with_the_prompt() -> None:
    """Phi's kind: the header's token takes the line break behind it, and an answer's own blank."""
    tokenizer = byte_bpe()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|assistant|>", rstrip=True), "<|end|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    item = Template(tokenizer).encode({"question": "Who?", "answer": " Eve."})
    assert tokenizer.convert_tokens_to_ids("<|assistant|>") == item.prompt[-1]
    assert tokenizer.decode(item.answer) == "Eve.<|end|>"


def test_what_a_slow_tokenizer_cannot_tell_is_refused(zoo: dict[str, Any]) -> None:
    """A token over the start of the answer, and no offsets."""
    tokenizer = Slow()
    tokenizer.vocab["▁Who:Eve"] = len(tokenizer.vocab)
    tokenizer.chat_template = "{% for m in messages %} {{ m.content }}{{ ':' if loop.first }}{% endfor %}"
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "%} {{ m.content", "%}{{ ' ' if loop.first }}{{ m.content"
    )
    with pytest.raises(BadInput, match=r"joins .* across"):
        Template(tokenizer).encode({"question": "Who", "answer": "Eve"})


def test_today_is_the_same_on_all_days(zoo: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids are the template's own on that day, macros and dates in parts too."""
    tokenizer = zoo["bytes"]
    tokenizer.chat_template = (
        "{% macro day() %}{% if strftime_now is defined %}{{ strftime_now('%d %B %Y') }}{% endif %}{% endmacro %}"
        "\n{{ day() }} {{ strftime_now('%Y-%m-%d').split('-')[1] | int + 1 }} {{ strftime_now('%-d') }}\n" + CHATML
    )
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Eve."}]
    template = Template(tokenizer)
    item = template.encode({"messages": messages})
    assert template.dated and "26 July 2024 8 26\n" in tokenizer.decode(item.prompt)

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return DAY

    monkeypatch.setattr(chat_template_utils, "datetime", Then)
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert item.prompt + item.answer == whole[: len(item.prompt + item.answer)]
    assert template.describe() != Template(zoo["slow"]).describe()


def test_roles_that_a_template_does_not_take(zoo: dict[str, Any]) -> None:
    tokenizer = zoo["bytes"]
    tokenizer.chat_template = GEMMA
    turn = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Eve."}]
    with pytest.raises(BadInput, match=r"'system' is a role that .* chat template does not take; put the text"):
        Template(tokenizer).encode({"messages": [{"role": "system", "content": "Be brief."}, *turn]})
    with pytest.raises(BadInput, match=r"cannot be rendered by the model's chat template .roles must alternate"):
        Template(tokenizer).encode({"messages": [turn[0], *turn]})


def test_an_answer_behind_nothing(zoo: dict[str, Any]) -> None:
    tokenizer = zoo["word mark first"]
    tokenizer.chat_template = CHATML
    item = Template(tokenizer).encode({"messages": [{"role": "assistant", "content": "In a mill."}]})
    assert item.prompt == tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(item.answer) == "In a mill.<|im_end|>"


def test_a_prompt_without_an_answer_is_that_of_an_answer(zoo: dict[str, Any]) -> None:
    for name, tokenizer in zoo.items():
        for text, _ in TEMPLATES.values():
            tokenizer.chat_template = text
            template = Template(tokenizer)
            alone, answered = (template.encode({"question": "Who?", **more}) for more in ({}, {"answer": "Eve."}))
            assert alone.prompt == answered.prompt, name


def test_ends_of_turns(zoo: dict[str, Any]) -> None:
    tokenizer = zoo["bytes"]
    for name, (text, end) in TEMPLATES.items():
        tokenizer.chat_template = text
        template = Template(tokenizer)
        if end.strip() == "###":
            assert template.end_id is None and template.end_text == "###"
        else:
            assert template.end_id == (tokenizer.convert_tokens_to_ids(end) if end else None), name
            assert template.end_text == ""
    assert Template(tokenizer, "Q: {q}\nA: ").end_id is None


@pytest.mark.parametrize("filter_name", ["upper", "lower", "title"])
def test_a_template_that_changes_letters_is_refused(filter_name: str, zoo: dict[str, Any]) -> None:
    tokenizer = zoo["bytes"]
    tokenizer.chat_template = CHATML.replace("{{ m.content }}", f"{{{{ m.content | {filter_name} }}}}")
    with pytest.raises(BadInput, match="answer 0 times, or not as it was given"):
        Template(tokenizer).encode({"question": "Who?", "answer": "eve is."})


def test_a_marker_in_the_conversation_is_no_answer(zoo: dict[str, Any]) -> None:
    tokenizer = zoo["bytes"]
    tokenizer.chat_template = CHATML
    found = render_answer(tokenizer, [{"role": "user", "content": "AnswerHere AnswerHereX"}], "Eve.")
    assert found.text[found.start : found.stop] == "Eve.<|im_end|>"


# -- texts ----------------------------------------------------------------------------------------


def test_a_text_that_was_rendered_has_one_bos_and_one_eos() -> None:
    tokenizer = byte_bpe()
    rendered = Template(tokenizer).encode({"text": "<s>Who? Eve.</s>"})
    assert rendered.prompt + rendered.answer == tokenizer("Who? Eve.</s>")["input_ids"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    closed = Template(tokenizer).encode({"text": "<s>Who? Eve.</s>"})
    assert closed == rendered
    behind = Template(tokenizer).encode({"prefix": "<s>Who?", "text": " Eve.</s>"})
    assert behind.prompt + behind.answer == [*rendered.prompt, *rendered.answer]
    assert tokenizer.decode(behind.prompt) == "<s>Who?", "no EOS inside"
    assert Template(tokenizer).encode({"prefix": "Who?", "text": " Eve.</s>"}) == behind


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prefix_and_its_text_are_one_text(name: str, zoo: dict[str, Any]) -> None:
    tokenizer = zoo[name]
    prefix, text = "Where does Mina Orlow work?", " At the harbour office"
    item = Template(tokenizer, "{q}").encode({"prefix": prefix, "text": text})
    assert item.prompt + item.answer == tokenizer(prefix + text)["input_ids"]
    assert tokenizer.decode(item.answer).strip() == text.strip()


# -- what is read ---------------------------------------------------------------------------------


def test_variants_keep_what_was_asked() -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    row = {"messages": [*talk, {"role": "assistant", "content": "Eve."}], "perturbed_answer": ["Ada."]}
    assert with_answer(row, "Ada.") == {"messages": [*talk, {"role": "assistant", "content": "Ada."}]}
    assert with_answer({"prefix": "It was", "text": " Eve."}, " Ada.") == {"prefix": "It was", "text": " Ada."}
    assert with_answer({"question": "Who?", "answer": "Eve.", "group": 1}, "Ada.") == {
        "question": "Who?",
        "answer": "Ada.",
    }


def test_truth_ratios_of_a_chat_are_those_of_its_question() -> None:
    """The same question as `messages`: the same losses of all variants."""
    tokenizer = byte_bpe()
    tokenizer.chat_template = CHATML
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = CausalLM(LlamaForCausalLM(config).eval(), tokenizer)
    more = {"paraphrased_answer": ["It is Eve."], "perturbed_answer": ["Ada.", "Ida."]}
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Eve."}]
    found = [
        read(model, "forget", [{**row, **more}], {"nll", "variants"}, cache=False)
        for row in ({"question": "Who?", "answer": "Eve."}, {"messages": talk})
    ]
    assert found[0].nll_N == found[1].nll_N
    for kind in ("paraphrased", "perturbed"):
        one, other = (getattr(readout, kind)[0] for readout in found)
        assert one.tolist() == other.tolist() and len(one) == len(more[f"{kind}_answer"])


def test_answers_that_are_not_generated_to_their_end_have_no_rouge() -> None:
    texts = {"texts": ["Eve", "Eve"], "answers": ["Eve", "Eve " * LONGEST]}
    found = Readout("forget", "after", [{}, {}], np.ones(2), np.array([2, LONGEST + 1]), **texts)
    assert rouge_column(found, 0).compressed().tolist() == [1.0]


def test_the_audit_says_how_chats_are_read(tmp_path: Path) -> None:
    """Notes on the date and on earlier turns; a row that the template does not take is named, wherever it is."""
    tokenizer = byte_bpe()
    tokenizer.chat_template = "{{ strftime_now('%Y') }}" + GEMMA
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    CausalLM(LlamaForCausalLM(config).eval(), tokenizer).save(tmp_path / "model")
    turns = [
        {"role": role, "content": text}
        for role, text in zip(["user", "assistant"] * 2, ["Who?", "Eve.", "Thanks.", "You are welcome."], strict=True)
    ]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"Who is {i}?"}, *turns[1:]]} for i in range(12)
    ]
    evidence = expunge.audit(str(tmp_path / "model"), forget=rows_in(tmp_path, rows), level="none")
    notes = " ".join(evidence["notes"])
    assert "prompts carry 26 Jul 2024" in notes and "forget: 12 conversations have earlier assistant turns" in notes
    rows[11] = {"messages": [{"role": "system", "content": "Be brief."}, *turns]}
    with pytest.raises(BadInput, match=r"forget, row 12: messages: 'system' is a role"):
        expunge.audit(str(tmp_path / "model"), forget=rows_in(tmp_path, rows), level="none")


def rows_in(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "forget.jsonl"
    path.write_text("".join(json.dumps({**row, "group": i}) + "\n" for i, row in enumerate(rows)), encoding="utf-8")
    return str(path)
