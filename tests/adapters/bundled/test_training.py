"""A few steps of training on a tiny network: they learn, go on after a stop, and export what transformers loads."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from modelcompose.adapters.bundled.train import corpus, data
from modelcompose.adapters.bundled.train.batches import Encoder
from modelcompose.adapters.bundled.train.export import configuration, export, write_card
from modelcompose.adapters.bundled.train.loop import Plan, Run
from modelcompose.adapters.bundled.train.network import Network, to_transformers
from modelcompose.adapters.bundled.train.optimizer import rate
from modelcompose.adapters.bundled.train.render import render, unspelled
from modelcompose.adapters.bundled.train.start import begin_with
from modelcompose.adapters.bundled.train.tokenizer import build


def tiny_run(work: Path, steps: int, **fields: Any) -> Run:
    random = Random(0)
    sources = data.Sources(corpus.read())
    texts = [unspelled(text) for _ in range(100) for text, _ in render(data.make(random, sources))]
    tokenizer = build(texts, 400)
    config = configuration(tokenizer, hidden=32, layers=2, inner=64, heads=2)
    plan = Plan(work, steps=steps, batch_tokens=2048, probes=1, use_compiler=False, **fields)
    return Run(plan, config, sources, Encoder(tokenizer))


def test_a_run_goes_on_after_a_stop_and_is_exported(tmp_path: Path) -> None:
    first = tiny_run(tmp_path, 3)
    first.train()
    second = tiny_run(tmp_path, 5)
    assert second.step == 3
    assert all(a.equal(b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))
    second.train()
    assert second.step == 5
    config, encoder = second.network.config, second.encoder
    export(to_transformers(second.network), config, encoder.tokenizer, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert isinstance(loaded, LlamaForCausalLM)
    assert loaded.model.embed_tokens.weight.equal(second.network.matrix())


def test_the_card_says_how_the_model_was_made(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, 1)
    write_card(run.network.config, to_transformers(run.network), run.summary(), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "{" not in text
    assert "in 0 steps" in " ".join(text.split())


def test_the_network_computes_what_transformers_computes() -> None:
    run_config = configuration(build(["a b c"], 300, minimum=1), hidden=32, layers=2, inner=64, heads=2)
    network = Network(run_config)
    theirs = LlamaForCausalLM(run_config)
    theirs.load_state_dict(to_transformers(network), strict=False)
    tokens = torch.randint(0, 256, (2, 20))
    with torch.no_grad():
        ours = network(tokens, torch.zeros_like(tokens)) @ network.embedding.weight.T
        torch.testing.assert_close(ours, theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_the_two_forms_of_a_word_are_alike_but_for_one_step_that_all_words_share() -> None:
    tokenizer = build([" stones and rivers"] * 3, 300)
    pairs = Encoder(tokenizer).pairs()
    network = Network(configuration(tokenizer, hidden=32, layers=1, inner=64, heads=2), pairs)
    assert {(tokenizer.id_to_token(a), tokenizer.id_to_token(b)) for a, b in pairs} == {
        ("Ġstones", "stones"),
        ("Ġand", "and"),
        ("Ġrivers", "rivers"),
    }
    tokens = torch.tensor([[spaced for spaced, _ in pairs], [bare for _, bare in pairs]])
    network.loss(tokens, torch.ones_like(tokens), torch.zeros_like(tokens)).backward()
    assert network.without_space.grad is not None
    assert network.without_space.grad.any()
    with torch.no_grad():
        network.without_space.normal_()
    weight, own = to_transformers(network)["model.embed_tokens.weight"], network.embedding.weight
    bare = [bare for _, bare in pairs]
    torch.testing.assert_close(weight[bare], own[[a for a, _ in pairs]] + network.without_space)
    others = [token for token in range(len(weight)) if token not in bare]
    assert weight[others].equal(own[others])


def small_network(text: str, hidden: int = 32) -> tuple[Network, Encoder]:
    tokenizer = build([text] * 3, 400)
    encoder = Encoder(tokenizer)
    return Network(configuration(tokenizer, hidden=hidden, layers=2, inner=64, heads=2), encoder.pairs()), encoder


def test_a_network_goes_on_from_a_model_with_other_words(tmp_path: Path) -> None:
    first, encoder = small_network(" stones and Rivers")
    with torch.no_grad():
        first.without_space.normal_()
    export(to_transformers(first), first.config, encoder.tokenizer, tmp_path)
    second, encoder_now = small_network(" Rivers and stones and other birds")
    begin_with(second, encoder_now.tokenizer, tmp_path)
    text = " stones and Rivers"
    before, now = (torch.tensor([each.tokenizer.encode(text).ids]) for each in (encoder, encoder_now))
    assert not before.equal(now)
    with torch.no_grad():
        torch.testing.assert_close(second(now, now * 0), first(before, before * 0), rtol=0.05, atol=0.05)


def test_a_run_that_began_with_a_model_goes_on_as_it_was(tmp_path: Path) -> None:
    first = tiny_run(tmp_path, 2)
    first.train()
    export(to_transformers(first.network), first.network.config, first.encoder.tokenizer, tmp_path / "model")
    work = tmp_path / "more"
    work.mkdir()
    began = tiny_run(work, 2, begin_with=tmp_path / "model", first_rate=0.25)
    torch.testing.assert_close(began.network.matrix(), first.network.matrix(), rtol=0, atol=1e-3)
    assert "earlier version" in began.summary()["begun"]
    began.train()
    went_on = tiny_run(work, 4)
    assert (went_on.step, went_on.first_rate) == (2, 0.25)
    assert "earlier version" in went_on.summary()["begun"]


def test_a_word_that_was_known_in_one_form_begins_with_it_in_the_other(tmp_path: Path) -> None:
    first, encoder = small_network(" stones and rivers")
    with torch.no_grad():
        first.without_space.normal_()
    weights, vocabulary = to_transformers(first), encoder.tokenizer.get_vocab()
    weights["model.embed_tokens.weight"][vocabulary["Ġrivers"]] = 0.0
    export(weights, first.config, encoder.tokenizer, tmp_path)
    known = (tmp_path / "tokenizer.json").read_text(encoding="utf-8").replace('"Ġrivers":', '"Ġforgotten":')
    (tmp_path / "tokenizer.json").write_text(known, encoding="utf-8")
    second, encoder_now = small_network(" stones and rivers")
    begin_with(second, encoder_now.tokenizer, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(second.matrix(), first.matrix(), rtol=0.05, atol=0.05)


def test_a_network_does_not_go_on_from_a_model_of_other_sizes(tmp_path: Path) -> None:
    first, encoder = small_network("a b c", hidden=64)
    export(to_transformers(first), first.config, encoder.tokenizer, tmp_path)
    second, encoder_now = small_network("a b c", hidden=32)
    with pytest.raises(ValueError, match="2 layers of sizes 64 and 64: not"):
        begin_with(second, encoder_now.tokenizer, tmp_path)


def test_an_example_does_not_see_its_neighbour_in_the_row() -> None:
    network = Network(configuration(build(["a b c"], 300, minimum=1), hidden=32, layers=2, inner=64, heads=2))
    tokens = torch.randint(0, 256, (1, 12))
    numbers = torch.tensor([[0] * 5 + [1] * 7])
    other = tokens.clone()
    other[0, :5] = torch.randint(0, 256, (5,))
    with torch.no_grad():
        assert network(tokens, numbers)[0, 5:].equal(network(other, numbers)[0, 5:])


def test_the_rate_rises_stays_and_falls() -> None:
    assert rate(0, 0.0) < rate(30, 0.05) < rate(200, 0.1) == 1.0
    assert rate(500, 0.5) > rate(900, 0.9) > rate(1000, 1.0)
