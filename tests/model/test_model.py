"""The model keeps magnitudes, norms, and its promises to the trainer and the sampler."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mpdit.catalogue import PAPERS_FLAGS, Dataset
from mpdit.model import SITES, DiT, magnitude
from mpdit.model.embedding import Fourier
from mpdit.model.layers import (
    Attention,
    MPEmbedding,
    MPLinear,
    mp_silu,
    mp_sum,
    normalize,
    to_length,
)
from mpdit.model.modulation import Modulation, Residual, blend_shift, layout, rotate
from mpdit.modelconfig import ModelConfig
from tests.helpers.magnitudes import probed

DATA = Dataset(channels=2, size=8, classes=5, extractor="digits")
TINY = {"depth": 2, "width": 16, "heads": 2, "patch_size": 4}
ALL = dict.fromkeys(PAPERS_FLAGS, True)
MODS = {"preset": "mods", "conditioning": "rotation_scale"}
FINAL = {"preset": "final"}


def config(**options) -> ModelConfig:
    return ModelConfig.model_validate({**TINY, **options})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(**options) -> DiT:
    """A tiny float64 model whose gains and zero weights are off their initial zero."""
    model = DiT(config(**options), DATA, generator=seeded()).double()
    for parameter in model.parameters():
        if parameter.ndim == 1 or not parameter.any():
            parameter.data.normal_(generator=seeded(1))
    return model


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(batch, 2, 8, 8, dtype=torch.float64, generator=seeded(2))
    return x, torch.arange(batch) * 400, torch.arange(batch)


def plain_normalize(w: torch.Tensor) -> torch.Tensor:
    """REFERENCE's formula, letter for letter."""
    return w * math.sqrt(w.shape[-1]) / (w.norm(dim=-1, keepdim=True) + 1e-4)


# Magnitude preservation. The magnitude of n numbers of unit variance is 1 within about 1/√n.

WIDTHS = st.integers(1, 24).map(lambda n: 16 * n)


@settings(deadline=None, max_examples=20)
@given(WIDTHS, st.integers(0, 1000))
def test_every_mp_operation_keeps_unit_magnitude(width, seed):
    random = seeded(seed)
    x, y = (torch.randn(512, width, generator=random) for _ in range(2))
    x, y = normalize(x), normalize(y)
    linear = MPLinear(width, 2 * width, normalized=True)
    table = MPEmbedding(7, width, normalized=True)
    for module in (linear, table):
        module.reset(random)
    # The map, the gate's and the sums' outputs vary from row to row by 1/√width.
    tolerance = 0.1 + 1 / math.sqrt(width)
    assert magnitude(linear(x)).item() == pytest.approx(1, abs=tolerance)
    assert magnitude(table(torch.arange(7))).item() == pytest.approx(1, abs=1e-3)
    for t in (0.3, 0.5):
        assert magnitude(mp_sum(x, y, t)).item() == pytest.approx(1, abs=tolerance)
    normal = torch.randn(512, width, generator=random)
    assert magnitude(mp_silu(normal)).item() == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("width", [64, 384, 1152])
def test_wide_mp_operations_keep_unit_magnitude_closely(width):
    random = seeded()
    x, y = (normalize(torch.randn(1024, width, generator=random)) for _ in range(2))
    linear = MPLinear(width, 4 * width, normalized=True)
    linear.reset(random)
    near = pytest.approx(1, abs=0.02)
    assert magnitude(linear(x)).item() == near
    assert magnitude(mp_sum(x, y, 0.3)).item() == near
    assert magnitude(mp_silu(torch.randn(1024, width, generator=random))).item() == near


@settings(deadline=None, max_examples=20)
@given(WIDTHS, st.integers(0, 1000))
def test_rotation_keeps_each_tokens_norm(width, seed):
    random = seeded(seed)
    x = torch.randn(2, 3, width, dtype=torch.float64, generator=random)
    angle = 10 * torch.randn(2, 1, width // 2, dtype=torch.float64, generator=random)
    torch.testing.assert_close(rotate(x, angle).norm(dim=-1), x.norm(dim=-1), rtol=1e-13, atol=0)
    torch.testing.assert_close(rotate(rotate(x, angle), -angle), x, rtol=0, atol=1e-13)


def test_rotation_turns_the_pair_i_and_i_plus_half():
    x, quarter = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.full((1, 1, 2), math.pi / 2)
    torch.testing.assert_close(rotate(x, quarter), torch.tensor([[[-3.0, -4.0, 1.0, 2.0]]]))


def test_the_official_models_magnitude_falls_with_depth_as_published():
    # About 0.97 after block 1, about 0.75 after block 12; 0.707 is the features' magnitude.
    sites = probed()
    residual = sites["residual"]
    assert residual[0].item() == pytest.approx(0.97, abs=0.02)
    assert residual[-1].item() == pytest.approx(0.75, abs=0.03)
    assert (residual[::3].diff() < 0).all()
    assert sites["attention"].max() < 0.8
    assert sites["conditioning"].item() < 0.9


def test_the_repairs_keep_the_magnitude_through_all_blocks():
    sites = probed(mp_attention=True, time_embedding="mp_fourier")
    for site in ("residual", "attention", "mlp"):
        assert (sites[site] - 1).abs().max() < 0.1, site
    assert sites["conditioning"].item() == pytest.approx(1, abs=0.03)


def test_the_last_generation_keeps_the_magnitude_through_all_blocks():
    sites = probed(preset="final")
    for site in ("conditioning", "modulated", "attention", "mlp", "residual"):
        assert sites[site].mean().item() == pytest.approx(1, abs=0.02), site
    assert (sites["residual"] - 1).abs().max() < 0.03
    assert (sites["attention"] - 1).abs().max() < 1e-3


@settings(deadline=None, max_examples=20)
@given(WIDTHS, st.integers(0, 1000))
def test_a_blended_shift_is_mp_sum_with_a_tenth_at_first(width, seed):
    random = seeded(seed)
    x, b = (torch.randn(4, n, width, dtype=torch.float64, generator=random) for n in (3, 1))
    a = torch.zeros(4, 1, 1, dtype=torch.float64)
    blended = blend_shift(x, torch.cat((b, a), dim=-1))
    torch.testing.assert_close(blended, mp_sum(x, b, 0.1), rtol=0, atol=1e-4)
    a.normal_(generator=random)
    blended = blend_shift(x, torch.cat((b, a), dim=-1))
    for i, blend in enumerate(torch.sigmoid(a - 2.1972).flatten().tolist()):
        torch.testing.assert_close(blended[i], mp_sum(x[i], b[i], blend), rtol=0, atol=1e-13)


def test_a_rotating_gate_rotates_the_output_before_the_sum():
    x, branch = torch.randn(2, 2, 3, 16, dtype=torch.float64, generator=seeded())
    angle = torch.randn(2, 1, 8, dtype=torch.float64, generator=seeded(1))
    for t in (0.3, 0.5):
        join = Residual(config(**ALL, gate="rotation", residual_t=t))
        expected = mp_sum(x, rotate(branch, angle), t)
        torch.testing.assert_close(join(x, branch, {"gate": angle}), expected, rtol=0, atol=1e-13)


def test_shifts_of_unit_magnitude_are_not_zero_at_first_and_all_else_is():
    model = DiT(ModelConfig.model_validate({"name": "DiT-S/4", **FINAL}), DATA, generator=seeded())
    for modulation in (model.blocks[0].modulation, model.final.modulation):
        for values in modulation(torch.randn(64, 384, generator=seeded(1))):
            shift = values.pop("blended_shift")
            assert magnitude(shift[..., :-1]).item() == pytest.approx(1, abs=0.02)
            assert not shift[..., -1:].any()
            assert not any(value.any() for value in values.values())


def test_the_repairs_are_off_in_both_generations():
    for preset in ("flags", "mods"):
        official = config(preset=preset)
        assert not official.mp_attention
        assert official.time_embedding != "mp_fourier"


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_restored_attention_has_unit_magnitude_at_any_width(heads, seed):
    attention = Attention(config(**ALL, width=32 * heads, heads=heads, mp_attention=True))
    for module in attention.children():
        module.reset(seeded(seed))
    x = normalize(torch.randn(16, 9, 32 * heads, generator=seeded(seed)))
    tolerance = 0.1 + 1 / math.sqrt(32 * heads)
    assert magnitude(attention(x)).item() == pytest.approx(1, abs=tolerance)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000))
def test_time_features_have_the_magnitude_that_they_say(seed):
    t = torch.arange(0, 1000, 7)
    for unit in (False, True):
        features = Fourier(unit=unit)
        features.reset(seeded(seed))
        expected = 1 if unit else 1 / math.sqrt(2)
        assert magnitude(features(t)).item() == pytest.approx(expected, abs=0.05)


# Normalized weights.


def test_the_gradient_through_normalization_is_right():
    x = torch.randn(3, 5, dtype=torch.float64, generator=seeded(), requires_grad=True)
    length = torch.rand(3, 1, dtype=torch.float64, generator=seeded(1), requires_grad=True)
    assert torch.autograd.gradcheck(to_length, (x, length))
    assert torch.autograd.gradcheck(normalize, (x,))


def test_a_row_of_zeros_has_a_finite_gradient():
    x = torch.zeros(2, 4, requires_grad=True)
    normalize(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


class InLayer(DiT):
    """The yardstick: each layer normalizes its stored weight inside the training forward."""

    def forward(self, *args, **kwargs):
        for module in self.modules():
            forced = self.config.forced_weight_normalization or module is self.label
            if isinstance(module, MPLinear | MPEmbedding) and module.normalized and forced:
                module.weight.data.copy_(plain_normalize(module.weight.data))
        return super().forward(*args, **kwargs)

    def normalize_weights(self) -> None:
        pass


@pytest.mark.parametrize("options", [ALL, MODS, FINAL, {"mp_embedding": True}], ids=str)
def test_forced_normalization_before_the_step_is_that_in_each_layer(options):
    weights = []
    for kind in (DiT, InLayer):
        model = kind(config(**options), DATA, generator=seeded()).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for step in range(6):
            model.normalize_weights()
            x, t, y = inputs()
            loss = (model(x, t + step, y) - x.repeat(1, 2, 1, 1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        weights.append(dict(model.named_parameters()))
    ours, yardstick = weights
    for name, weight in ours.items():
        torch.testing.assert_close(weight, yardstick[name], rtol=0, atol=1e-12, msg=name)


def test_forced_normalization_leaves_what_no_flag_forces():
    for options, changed in [
        ({}, set()),
        ({"weight_normalization": True}, set()),
        ({"mp_embedding": True}, {"label.weight"}),
    ]:
        model = build(**options)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.normalize_weights()
        after = dict(model.named_parameters())
        assert {name for name in before if not torch.equal(before[name], after[name])} == changed


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("options", [{}, ALL, MODS, FINAL], ids=["none", "all", "mods", "final"])
def test_folded_weights_are_the_same_function(options, dtype, tolerance):
    model = build(**options).to(dtype)
    x, t, y = inputs()
    with torch.no_grad():
        before = model(x.to(dtype), t, y)
        model.fold()
        after = model(x.to(dtype), t, y)
    assert not model.mp_parameters()
    assert (after - before).abs().max() <= tolerance * before.abs().max()


def test_normalized_weights_are_the_learning_rate_group():
    assert DiT(config(), DATA).mp_parameters() == []
    model = DiT(config(**ALL), DATA)
    named = {name for name, p in model.named_parameters() if p.ndim == 2}
    group = {id(p) for p in model.mp_parameters()}
    assert {name for name, p in model.named_parameters() if id(p) in group} == named


# What the trainer and the sampler rely on.

CONFIGS = [
    {},
    ALL,
    MODS,
    {"cosine_attention": True, "conditioning": "scale+gate"},
    {"weight_normalization": True, "modulation": "separate", "conditioning": "shift+rotation"},
    {"preset": "mods", "conditioning": "none"},
    {"mp_residual": True, "gate": "one_plus", "final_conditioning": "scale"},
    {"time_embedding": "fourier", "mp_pos_enc": True, "mean_free_positions": True},
    {"mp_attention": True, "time_embedding": "mp_fourier"},
    {**MODS, "mp_attention": True},
    FINAL,
    {"conditioning": "shift+blended_shift", "zero_output": False, "mp_attention_output": True},
    {**MODS, "conditioning": "blended_shift+gate", "gate": "rotation", "mean_free_table": True},
    {**ALL, "modulation": "plain", "residual_t": 0.5},
    {"norm": "dyt", "qk_norm": "rms"},
    {**MODS, "norm": "rms", "qk_norm": "rms"},
    {"shared_modulation": True},
    {"mlp": "swiglu"},
    {"positions": "rope", "qk_norm": "rms"},
    {**MODS, "positions": "rope"},
    {**MODS, "mlp": "swiglu", "conditioning": "adaln"},
    {**MODS, "shared_modulation": True},
]


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_initial_values_come_from_the_generator_alone(options):
    torch.manual_seed(5)
    first = DiT(config(**options), DATA, generator=seeded()).state_dict()
    torch.manual_seed(6)
    before = torch.get_rng_state()
    second = DiT(config(**options), DATA, generator=seeded()).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_the_initial_output_is_zero_where_it_should_be_and_everything_can_learn(options):
    model = DiT(config(**options), DATA, generator=seeded()).double()
    assert model(*inputs()).any() != model.config.zero_output
    assert model.config.has_gains == bool(model.gains())
    model = build(**options)
    model(*inputs()).square().sum().backward()
    conditioned = bool(model.config.parts)
    for name, parameter in model.named_parameters():
        unused = not conditioned and name.startswith(("time.", "label."))
        assert (parameter.grad is None) == unused, name


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_recording_changes_nothing_and_names_every_site(options):
    model = build(**options)
    seen: list[tuple[int, str]] = []
    x, t, y = inputs()
    recorded = model(x, t, y, record=lambda block, site, _: seen.append((block, site)))
    assert torch.equal(recorded, model(x, t, y))
    blocks = range(model.config.depth)
    expected = {(i, site) for i in blocks for site in SITES if site != "conditioning"}
    assert set(seen) == expected | {(0, "conditioning")}
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_gradient_checkpointing_is_the_same_bits(options, dtype):
    gradients = []
    for recompute in (False, True):
        model = build(**options).float()
        model.recompute = recompute
        x, t, y = inputs()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = model(x.float(), t, y)
        output.float().square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        recomputed = gradients[1][name]
        assert (gradient is None) == (recomputed is None), name
        assert gradient is None or torch.equal(gradient, recomputed), name


def test_gradient_checkpointing_keeps_less():
    kept = []
    for recompute in (False, True):
        model = build(**ALL)
        model.recompute = recompute
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: (sizes.append(tensor.numel()), tensor)[1], lambda t: t
        ):
            model(*inputs())
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_guidance_extrapolates_from_the_null_class():
    model = build(**ALL)
    x, t, y = inputs()
    with torch.no_grad():
        own, null = model(x, t, y), model(x, t, torch.full_like(y, model.null_class))
        guided = model.guided(x, t, y, 2.0)
        assert torch.equal(model.guided(x, t, y, 1.0), own)
        unconditional = model.guided(x, t, y, 0.0)
    torch.testing.assert_close(guided[:, :2], 2 * own[:, :2] - null[:, :2])
    torch.testing.assert_close(guided[:, 2:], own[:, 2:])
    torch.testing.assert_close(unconditional[:, :2], null[:, :2])


def test_half_precision_trains():
    model = DiT(config(**ALL), DATA, generator=seeded())
    x, t, y = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x.float(), t, y)
    output.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_scale_and_shift_are_applied_in_one_pass_or_two_alike():
    x = torch.randn(2, 3, 4, generator=seeded())
    s, b = torch.randn(2, 2, 1, 4, generator=seeded(1))

    def modulated(conditioning, values):
        model_config = config(conditioning=conditioning)
        return Modulation(model_config, model_config.parts, 2).modulate(x, values)

    torch.testing.assert_close(modulated("scale+shift", {"scale": s, "shift": b}), x * (1 + s) + b)
    torch.testing.assert_close(modulated("shift", {"shift": b}), x + b)
    torch.testing.assert_close(modulated("scale+gate", {"scale": s, "gate": b}), x * (1 + s))


def test_separate_modulations_are_linear_maps_of_their_own():
    model_config = config(**MODS)
    together = Modulation(model_config, model_config.parts, 2)
    together.linear.reset(seeded())
    assert together.linear.gain is not None
    together.linear.gain.data.normal_(generator=seeded(1))
    c = torch.randn(3, 16, generator=seeded(2))
    rows = iter(together.linear.weight.split(together.sizes))
    gains = iter(together.linear.gain)
    for values in together(c):
        assert tuple(values) == layout(model_config.parts)
        for value in values.values():
            matrix = plain_normalize(next(rows)) * next(gains) / math.sqrt(16)
            torch.testing.assert_close(value[:, 0], F.linear(c, matrix))


def test_attention_sees_every_token_whatever_its_place():
    attention = Attention(config(**ALL))
    for module in attention.children():
        module.reset(seeded())
    x = torch.randn(2, 5, 16, generator=seeded(1))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(attention(x)[:, order], attention(x[:, order]))
