"""Prompts equal those of transformers character by character, or both refuse the conversation."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from growth import MOST_GROWTH, growth
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_worker.models.checkpoint.chat_template import ChatTemplate, TemplateOptions
from ponder_worker.models.model_error import InvalidConversation, InvalidFile

from .chat_templates import TEMPLATES

_CONVERSATIONS = {
    "one question": ["user"],
    "instructions": ["system", "user"],
    "a dialogue": ["user", "assistant", "user"],
    "all of it": ["system", "user", "assistant", "user", "assistant", "user"],
    "the answer last": ["user", "assistant"],
    "the user twice": ["user", "user"],
    "the assistant first": ["assistant", "user"],
    "instructions in the middle": ["user", "system", "user"],
    "instructions alone": ["system"],
}
_CONTENTS = [
    "What is 2 < 3 & 'x' > \"y\"?",
    "  \n<think>\nhm\n</think>\n\n{{ bos_token }} {% raise %} \n ",
    "Être, 思考, \U0001f600\r\n\n\tend",
    "",
    "/no_think",
    "<tool_response>x</tool_response>",
]
_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


@pytest.fixture(scope="module")
def peer(tiny_llama: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama, **_TOKENS)


def _conversation(roles: list[str], shift: int = 0) -> list[dict[str, str]]:
    return [{"role": role, "content": _CONTENTS[(i + shift) % len(_CONTENTS)]} for i, role in enumerate(roles)]


def _theirs(peer: Any, source: str, messages: list[dict[str, str]]) -> str | None:
    try:
        text: str = peer.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=True)
    except Exception:
        return None
    return text


def _ours(source: str, messages: list[dict[str, str]]) -> str | None:
    try:
        return ChatTemplate(source, _TOKENS).render(messages)
    except Exception:
        return None


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_prompts_of_public_families_are_those_of_transformers(peer: Any, family: str) -> None:
    source, num_refused = TEMPLATES[family], 0
    for roles in _CONVERSATIONS.values():
        for shift in range(len(_CONTENTS)):
            messages = _conversation(roles, shift)
            expected = _theirs(peer, source, messages)
            assert _ours(source, messages) == expected
            num_refused += expected is None
    assert num_refused <= 5 * len(_CONTENTS)  # of the nine templates; one that is never rendered compares nothing


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
_ROLES = st.sampled_from(["system", "user", "assistant"])


@settings(max_examples=100)
@given(
    family=st.sampled_from(sorted(TEMPLATES)),
    messages=st.lists(st.fixed_dictionaries({"role": _ROLES, "content": _TEXT}), min_size=1, max_size=6),
)
def test_any_conversation_gives_the_prompt_of_transformers(
    peer: Any, family: str, messages: list[dict[str, str]]
) -> None:
    assert _ours(TEMPLATES[family], messages) == _theirs(peer, TEMPLATES[family], messages)


@pytest.mark.parametrize(
    "source",
    [
        "{% if tools is not none %}tools{% endif %}{% if documents is not none %}documents{% endif %}",
        "{{ tools is defined }}{{ documents is defined }}{{ tools is none }}{{ anything is defined }}",
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ mask_token is defined }}",
        "a\n{% for message in messages %}\n  {% if true %}\n x \n  {% endif %}\n{% endfor %}\n\n",
        "{% generation %}\n a {% set x = 1 %}{{ x }}\n{% endgeneration %}\n{{ x is defined }}",
        "{%- for m in messages -%}{%- generation -%} {{ m.content }} {%- endgeneration -%}{%- endfor -%}",
        "{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
        "{% generation %}",
        "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
        "{% set n = namespace(a=1, b={}) %}{% set n.a = n.a + 1 %}{{ n.a }}{{ n.b }}{{ n }}",
        "{% set n = namespace({'x': 1}, self=2) %}{{ n.x }}{{ n.self }}",
        "{% set n = namespace(__class__=1) %}{{ n }}",
        "{% set n = namespace() %}{% set n._a = 1 %}{{ n._a }}",
        "{{ dict(a=1, b=2) }}{{ dict([('a', 1)]) }}{{ dict.fromkeys('ab', 1) }}{{ dict.fromkeys('a') }}",
        "{{ dict.__subclasses__() }}",
        "{{ [1, {'é': '<&>'}] | tojson }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
        "{{ {'b': [1, 2]} | tojson(indent=2) }}{{ {'b': 1} | tojson(separators=(',', ':')) }}{{ 'é' | tojson(true) }}",
        "{{ strftime_now('%Y') }}{{ strftime_now(format='%m') }}",
        "{{ raise_exception('no') }}",
        "{{ messages[0].nothing.more }}",
        "{{ messages[0].nothing }}{{ messages[5] }}{{ 1 / 0 }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__ }}{{ messages[0]['__class__'] }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__ }}{{ dict.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ messages | attr('__class__') }}",
        "{% include 'x' %}",
        "{{ range(1000000) | length }}",
        "{{ messages | no_such_filter }}",
        "{% do messages %}",
        "{% trans %}x{% endtrans %}",
        "{{ '<b>' | e }}{{ '<b>' | safe }}{{ '<b>' }}",
        "{{ lipsum is defined }}{{ joiner is defined }}{{ self is defined }}",
        "{{ messages | map(attribute='content') | list }}{{ messages | selectattr('role', '==', 'user') | list }}",
    ],
)
def test_a_template_can_use_what_it_can_use_in_transformers(peer: Any, source: str) -> None:
    for roles in (["user"], ["system", "user", "assistant"]):
        messages = _conversation(roles)
        assert _ours(source, messages) == _theirs(peer, source, messages)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ strftime_now.__globals__['datetime'].sys }}",
        "{{ dict.__call__.__globals__ }}{{ dict.__call__.__globals__.x }}",
        "{% set n = namespace() %}{{ n.__init__.__globals__.x }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ (messages | attr('__class__')).__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_reaches_nothing_outside_of_it(source: str) -> None:
    with pytest.raises(InvalidConversation):
        ChatTemplate(source, {}).render(_conversation(["user"]))


def _folder(tiny_llama: Path, folder: Path, **fields: Any) -> Path:
    shutil.copytree(tiny_llama, folder)
    for name, value in fields.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}|{{ eos_token }}|{{ cls_token }}|{{ image_token }}|{{ boi_token }}|{{ add_bos_token }}"
    )
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"bos_token": "<s>", "eos_token": None, "image_token": "<pad>", "add_bos_token": True}},
        {"tokenizer_config": {"bos_token": {"__type": "AddedToken", "content": "<s>"}, "cls_token": "<s>"}},
        {"tokenizer_config": {"extra_special_tokens": {"boi_token": "<pad>"}}},
        {"tokenizer_config": {}, "special_tokens_map": {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}},
        {"tokenizer_config": {"bos_token": "<pad>"}, "special_tokens_map": {"bos_token": "<s>"}},
        {
            "tokenizer_config": {"bos_token": "<pad>", "added_tokens_decoder": {"0": {"content": "<pad>"}}},
            "special_tokens_map": {"bos_token": "<s>"},
        },
    ],
)
def test_special_tokens_come_from_the_files_that_transformers_reads(
    tiny_llama: Path, tmp_path: Path, files: dict[str, Any]
) -> None:
    from transformers import AutoTokenizer

    folder = _folder(tiny_llama, tmp_path / "model", **files)
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(_conversation(["user"]), tokenize=False)
    template = ChatTemplate.read(folder)
    assert template is not None
    assert template.render(_conversation(["user"])) == expected


@pytest.mark.parametrize("source", ["{% for %}", "{% generation %}", "{{ messages | nothing }}", "{% endif %}"])
def test_a_template_that_does_not_parse_is_refused_with_its_folder(
    tiny_llama: Path, tmp_path: Path, source: str
) -> None:
    folder = _folder(tiny_llama, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(source)
    with pytest.raises(InvalidFile, match="model: the chat template does not parse"):
        ChatTemplate.read(folder)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{% set x = messages | selectattr('role', '==', 'user') | list %}{% endfor %}",
        "{% set x %}{% for m in messages %}{% for n in messages %}{{ m.role }}{% endfor %}{% endfor %}{% endset %}",
        "{% for m in messages %}{% for n in messages %}{% endfor %}.{% endfor %}",
    ],
)
def test_a_template_without_an_end_refuses_its_conversation_and_no_other(source: str) -> None:
    template, messages = ChatTemplate(source, {}, limit_s=0.2), _conversation(["user", "assistant"] * 10_000)
    began = time.thread_time()
    with pytest.raises(InvalidConversation, match=r"more than 0\.2 s of processor time for 20000 messages"):
        template.render(messages)
    assert time.thread_time() - began < 2.0
    template.render(messages[:10])


@pytest.mark.parametrize("family", ["ChatML", "Llama 3", "Mistral", "Qwen 3", "GLM", "Kimi", "gpt-oss"])
def test_twice_the_messages_cost_about_twice_the_time(family: str) -> None:
    template = ChatTemplate(TEMPLATES[family], _TOKENS)
    messages = [{"role": role, "content": ""} for role in ("user", "assistant") * 2_000]
    assert growth(lambda num: template.render(messages[:num]), 2_000) <= MOST_GROWTH


def test_further_variables_override_nothing_that_the_template_gets() -> None:
    template = ChatTemplate("{{ bos_token }}{{ messages[0].content }}{{ mood }}", {"bos_token": "<s>"})
    kwargs = {"mood": "calm", "messages": [{"content": "forged"}], "bos_token": "forged"}
    assert template.render([{"role": "user", "content": "hi "}], TemplateOptions(kwargs)) == "<s>hi calm"


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_last_message_is_left_open_as_transformers_leaves_it(peer: Any, family: str) -> None:
    source = TEMPLATES[family]
    messages = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "There are exactly"}]
    try:
        theirs = peer.apply_chat_template(messages, chat_template=source, tokenize=False, continue_final_message=True)
    except Exception:
        pytest.skip("transformers does not continue it either")
    ours = ChatTemplate(source, _TOKENS).render(messages, TemplateOptions(continue_final_message=True))
    assert ours == theirs
    assert ours.endswith("There are exactly")


def test_a_template_that_drops_the_last_message_cannot_continue_it() -> None:
    template = ChatTemplate("{{ messages[0].content }}", {})
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(InvalidConversation, match="cannot be continued"):
        template.render(messages, TemplateOptions(continue_final_message=True))
