"""Each of the model's named options is its equation, and keeps magnitudes where it says so."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from numpy.polynomial.hermite_e import hermegauss
from torch import nn

from mpdit.catalogue import PAPERS_FLAGS, Dataset
from mpdit.config import make_run
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.model.embedding import AxialRoPE
from mpdit.model.layers import MLP, SILU_MAGNITUDE, Attention
from mpdit.model.norm import DYT_MAGNITUDE, norm_of
from mpdit.modelconfig import PRESETS, ModelConfig
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training.trainer import Trainer
from tests.helpers.magnitudes import probed
from tests.helpers.tiny import tiny_config

DATA = Dataset(channels=2, size=8, classes=5, extractor="digits")
ALL = dict.fromkeys(PAPERS_FLAGS, True)
MODS = {"preset": "mods"}
TINY = {"depth": 2, "width": 16, "heads": 2, "patch_size": 4}


def config(**options) -> ModelConfig:
    return ModelConfig.model_validate({**TINY, **options})


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def drawn(module: nn.Module) -> nn.Module:
    """The module in float64, all of its parameters at random."""
    for seed, parameter in enumerate(module.double().parameters()):
        parameter.data = random(*parameter.shape, seed=seed)
    return module


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return random(3, 2, 8, 8, seed=7), torch.arange(3) * 400, torch.arange(3)


def refused(model: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_run({"model": {**TINY, **model}, "data": "digits", "train": {"steps": 10}})


def gradients(outputs: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad((outputs * random(*outputs.shape, seed=9)).sum(), inputs))


def by_torch(kind: str, x: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """The norm by PyTorch's own module, or by its equation."""
    width = x.shape[-1]
    if kind == "dyt":
        alpha, gamma, beta = parameters
        return torch.stack([gamma * torch.tanh(alpha * row) + beta for row in x.unbind()])
    modules = {"none": nn.Identity, "layer": nn.LayerNorm, "rms": nn.RMSNorm}
    normed: torch.Tensor = modules[kind](width, eps=1e-6, elementwise_affine=False)(x)
    return normed


@pytest.mark.parametrize("kind", ["layer", "rms", "none", "dyt"])
def test_a_norm_is_its_equation_and_so_are_its_gradients(kind):
    norm = drawn(norm_of(config(norm=kind)))
    x = (3 * random(5, 16) + 1).requires_grad_()
    inputs = [x, *norm.parameters()]
    ours, theirs = norm(x), by_torch(kind, x, inputs[1:])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for one, other in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_every_norm_is_at_first_without_an_effect_of_its_parameters():
    x = random(5, 16)
    dyt = norm_of(config(norm="dyt")).double()
    torch.testing.assert_close(dyt(x), torch.tanh(x / 2))
    attention = Attention(config(qk_norm="rms"))
    assert (attention.q_norm.gain == 1).all()
    assert (attention.k_norm.gain == 1).all()


@pytest.mark.parametrize("kind", ["none", "cosine", "rms"])
def test_attention_normalizes_q_and_k_of_each_head_as_by_hand(kind):
    attention = drawn(Attention(config(qk_norm=kind)))
    x = random(3, 5, 16, seed=5)
    outputs = torch.zeros(3, 5, 16, dtype=torch.float64)
    for image in range(3):
        q, k, v = (x[image] @ rows.T for rows in attention.qkv.weight.split(16))
        for head in (slice(0, 8), slice(8, 16)):
            of_q, of_k = q[:, head], k[:, head]
            if kind == "cosine":
                of_q, of_k = (8**0.5 * y / (y.norm(dim=-1)[:, None] + 1e-4) for y in (of_q, of_k))
            if kind == "rms":
                of_q, of_k = (
                    y / (y.square().mean(-1)[:, None] + 1e-6).sqrt() for y in (of_q, of_k)
                )
                of_q, of_k = of_q * attention.q_norm.gain, of_k * attention.k_norm.gain
            outputs[image, :, head] = (of_q @ of_k.T / 8**0.5).softmax(-1) @ v[:, head]
    torch.testing.assert_close(attention(x), outputs @ attention.out.weight.T)


@pytest.mark.parametrize("conditioning", ["adaln", "rotation", "scale+rotation"])
@pytest.mark.parametrize("options", [{}, MODS], ids=["none", "mods"])
def test_shared_modulation_is_one_map_with_a_bias_for_each_block(options, conditioning):
    options = {**options, "conditioning": conditioning}
    shared, plain = (
        drawn(DiT(config(**options, shared_modulation=on), DATA)) for on in (True, False)
    )
    weights = shared.state_dict()
    plain.load_state_dict(
        {name: weights.get(name, value) for name, value in plain.state_dict().items()}
    )
    for block, of_shared in zip(plain.blocks, shared.blocks, strict=True):
        outputs, width = shared.modulation.weight.shape
        linear = nn.Linear(width, outputs, dtype=torch.float64)
        linear.weight.data = shared.modulation.matrix().detach().clone()
        linear.bias.data = of_shared.modulation.embedding.detach().clone()
        block.modulation.linear = linear
    one, other = shared(*inputs()), plain(*inputs())
    torch.testing.assert_close(one, other)
    biases = [block.modulation.linear.bias for block in plain.blocks]
    embeddings = [block.modulation.embedding for block in shared.blocks]
    torch.testing.assert_close(gradients(one, embeddings), gradients(other, biases))


def test_shared_modulation_is_at_first_the_same_function_and_has_something_to_share():
    generator = torch.Generator().manual_seed(1)
    model = DiT(config(**ALL, shared_modulation=True), DATA, generator=generator)
    assert model.modulation.gain is not None
    assert not model.modulation.gain.any()
    assert not any(block.modulation.embedding.any() for block in model.blocks)
    refused({"conditioning": "none", "shared_modulation": True}, "shared_modulation needs a modul")
    refused({"preset": "final", "shared_modulation": True}, "conditioning to parts without blended")
    turned = {"preset": "final", "shared_modulation": True, "conditioning": "rotation+gate"}
    assert DiT(config(**turned), DATA).modulation is not None


@pytest.mark.parametrize("options", [{}, ALL], ids=["none", "all"])
def test_the_uncertainty_weights_each_images_loss_and_has_no_part_in_the_output(options, tmp_path):
    options |= {"time_embedding": "mp_fourier"}
    train = {"objective": "edm", "batch_size": 8}
    configs = [
        tiny_config(
            model={**options, "learned_uncertainty": on}, train=train, sample={"solver": "heun"}
        )
        for on in (False, True)
    ]
    plain, weighted = (
        Trainer(one, Session(RunDir(tmp_path)), torch.device("cpu"), World()) for one in configs
    )
    learned = weighted.model.uncertainty
    random = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(learned.linear.weight, std=0.1, generator=random)
    x0, sigma, noise, y = weighted.draw(1)
    wave = (sigma.log()[:, None] / 4 * learned.features.scale + learned.features.shift).cos()
    row = learned.linear.weight[0]
    row = row / (row.norm() + 1e-4) if options.get("weight_normalization") else row
    u = 2**0.5 * wave @ row
    shares = [weighted._losses(*(v[i : i + 1] for v in (x0, sigma, noise, y))) for i in range(8)]
    alone = [plain._losses(*(v[i : i + 1] for v in (x0, sigma, noise, y))) for i in range(8)]
    for share, of_plain, u_i in zip(shares, alone, u, strict=True):
        assert share[1].item() == of_plain[1].item()  # the error itself
        expected = of_plain[0] / u_i.exp() + u_i
        torch.testing.assert_close(share[0], expected)
    (slope,) = torch.autograd.grad(shares[0][0], learned.linear.weight)
    assert bool(slope.any())


def test_the_uncertainty_is_of_edms_loss_alone_and_at_first_without_effect():
    refused({"learned_uncertainty": True}, "learned_uncertainty weights the loss of train.objecti")
    plain = DiT(config(learned_uncertainty=True), DATA).uncertainty
    assert not plain(torch.randn(5)).any()
    # One output of a random row is of unit magnitude only in the mean over rows.
    rows = [
        DiT(config(**ALL, learned_uncertainty=True), DATA).uncertainty(torch.randn(64))
        for _ in range(200)
    ]
    assert torch.cat(rows).square().mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("options", [{}, {"mp_silu": True}, ALL], ids=["none", "mp_silu", "all"])
def test_swiglu_is_a_gated_map_in_a_plain_loop(options):
    mlp = drawn(MLP.of_block(config(**options, mlp="swiglu")))
    hidden = 40  # the multiple of 8 nearest to 8/3 · 16
    first = mlp.first.matrix()
    assert first.shape == (2 * hidden, 16)
    x = random(3, 16, seed=8)
    outputs = []
    for row in x:
        of_gate = [row @ first[i] for i in range(hidden)]
        of_value = [row @ first[hidden + i] for i in range(hidden)]
        gated = torch.stack([a * a.sigmoid() * b for a, b in zip(of_gate, of_value, strict=True)])
        rows = mlp.second.weight
        if options == ALL:
            rows = rows / (rows.norm(dim=-1, keepdim=True) + 1e-4)
        outputs.append(rows @ gated / (0.596 if options else 1))
    torch.testing.assert_close(mlp(x), torch.stack(outputs))


def second_moment(f: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """E[f(z)²] for normally distributed z, by Gauss's quadrature."""
    nodes, weights = (torch.from_numpy(values) for values in hermegauss(150))
    return ((weights * f(nodes) ** 2).sum() / math.sqrt(2 * math.pi)).item()


def test_dyts_constant_is_the_magnitude_of_its_tanh():
    expected = math.sqrt(second_moment(lambda z: torch.tanh(z / 2)))
    assert pytest.approx(expected, abs=5e-5) == DYT_MAGNITUDE


def test_swiglus_constant_is_the_magnitude_of_its_product():
    of_silu, of_value = second_moment(F.silu), second_moment(lambda z: z)
    assert math.sqrt(of_silu * of_value) == pytest.approx(SILU_MAGNITUDE, abs=5e-4)
    a, b = random(2, 1_000_000)
    measured = (F.silu(a) * b).square().mean().sqrt().item()
    assert measured == pytest.approx(SILU_MAGNITUDE, rel=0.005)


def test_rope_multiplies_complex_pairs_by_powers_of_their_place():
    channels, side = 16, 3
    x = random(2, 2, side * side, channels, seed=3)
    rope = AxialRoPE(channels, side)
    turned = rope(x)
    pairs = torch.complex(x[..., : channels // 2], x[..., channels // 2 :])
    for row in range(side):
        for column in range(side):
            token = row * side + column
            angles = [
                place / 100 ** (i / (channels // 4))
                for place in (column, row)
                for i in range(channels // 4)
            ]
            expected = pairs[:, :, token] * torch.exp(1j * torch.tensor(angles).double())
            theirs = torch.cat((expected.real, expected.imag), dim=-1)
            torch.testing.assert_close(turned[:, :, token], theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert rope(x.bfloat16()).dtype == torch.bfloat16


def test_with_rope_the_products_of_q_and_k_depend_on_the_distance_alone():
    side = 4
    q, k = random(2, 1, 1, 1, 16)
    tokens = torch.ones(side * side, 1, dtype=torch.float64)
    q, k = (AxialRoPE(16, side)(one * tokens)[0, 0].view(side, side, 16) for one in (q, k))
    products = torch.einsum("yxc,vuc->yxvu", q, k)
    torch.testing.assert_close(products[1:, 1:, 1:, 1:], products[:-1, :-1, :-1, :-1])
    assert (products[0, 0, 1, 0] - products[0, 0, 0, 1]).abs() > 1e-3


def test_the_model_with_rope_has_no_table_and_sees_places():
    model = drawn(DiT(config(positions="rope", patch_size=2), DATA))
    assert model.positions is None
    x, t, y = inputs()
    moved = x.roll(2, dims=-1)
    assert (model(moved, t, y).roll(-2, dims=-1) - model(x, t, y)).abs().max() > 1e-3
    for block in model.blocks:
        block.attention.rope = None
    torch.testing.assert_close(model(moved, t, y).roll(-2, dims=-1), model(x, t, y))


def test_what_rope_cannot_have_is_one_message_and_a_preset_gives_way():
    refused({"positions": "rope", "mp_pos_enc": True}, "mp_pos_enc changes the table of positions")
    refused({"positions": "rope", "heads": 8}, "width 16 / heads 8 is not a multiple of 4")
    refused({"positions": "rope", "mean_free_table": True}, "mean_free_table changes the table of")
    for preset in PRESETS:
        model = config(preset=preset, positions="rope")
        assert not any((model.mp_pos_enc, model.mean_free_positions, model.mean_free_table))


@pytest.mark.parametrize(
    "options",
    [
        *({"norm": norm} for norm in ("none", "layer", "rms", "dyt")),
        *({"qk_norm": norm} for norm in ("none", "rms")),
        {"mlp": "swiglu"},
        {"positions": "rope"},
        {"shared_modulation": True},
    ],
    ids=str,
)
def test_every_option_keeps_unit_magnitude_in_a_magnitude_preserving_model(options):
    sites = probed(depth=3, mp_attention=True, time_embedding="mp_fourier", **options)
    del sites["weight"]  # of a map that is multiplied by a gain of zero, too
    for site, by_block in sites.items():
        assert by_block.mean().item() == pytest.approx(1, abs=0.02), site
