"""bfloat16 is for matrix products: norms, cos, sin, the residual stream stay in float32."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from mpdit.model.layers import normalize
from tests.helpers import ROOT
from tests.helpers.precision import ALL, build, inputs, relative, run

MODS = {"preset": "mods", "conditioning": "rotation_scale"}
MODELS = [
    {},
    ALL,
    MODS,
    {"preset": "final"},
    {**ALL, "conditioning": "rotation", "mp_attention": True},
]
MODELS += [{**MODS, "shared_modulation": True}]
MODELS += [{**MODS, "mlp": "swiglu"}]
MODELS += [{**MODS, "positions": "rope"}]
MODELS += [{"norm": norm, "qk_norm": "rms"} for norm in ("rms", "dyt")]

aten = torch.ops.aten
OF_RESULT = {aten.linalg_vector_norm.default}
OF_INPUT = {aten.cos.default, aten.sin.default, aten.tanh.default}
OF_INPUT |= {aten.native_layer_norm.default, aten.rsqrt.default}
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default}


class Seen(TorchDispatchMode):
    """The dtypes that operations computed in, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: dict[object, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in OF_RESULT:
            self.dtypes.setdefault(func, set()).add(result.dtype)
        if func in OF_INPUT | PRODUCTS:
            self.dtypes.setdefault(func, set()).add(args[0].dtype)
        return result


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_norms_cos_and_sin_are_float32_and_products_bfloat16(options):
    model = build(**options)
    with Seen() as seen:
        run(model, bf16=True).square().sum().backward()
    products = set().union(*(seen.dtypes.get(op, set()) for op in PRODUCTS))
    assert products == {torch.bfloat16}
    for op in OF_RESULT | OF_INPUT:
        assert seen.dtypes.get(op, {torch.float32}) == {torch.float32}, op
    if model.config.cosine_attention:
        assert seen.dtypes.keys() >= OF_RESULT
    assert (model.config.norm == "layer") == (aten.native_layer_norm.default in seen.dtypes)
    assert (model.config.norm == "dyt") == (aten.tanh.default in seen.dtypes)
    assert (model.config.qk_norm == "rms") == (aten.rsqrt.default in seen.dtypes)


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_the_residual_stream_is_float32(options):
    dtypes: dict[str, set[torch.dtype]] = {}
    model = build(**options)
    with torch.autocast("cpu", torch.bfloat16):
        model(
            *inputs(),
            record=lambda _, site, value: dtypes.setdefault(site, set()).add(value.dtype),
        )
    for site in ("conditioning", "modulated", "residual"):
        assert dtypes[site] == {torch.float32}, site


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_bfloat16_is_near_float32(options):
    # bfloat16 rounds by 2^-9 = 0.002; a dozen roundings in a row come to a percent
    gradients, outputs = [], []
    for bf16 in (False, True):
        model = build(**options)
        outputs.append(run(model, bf16))
        outputs[-1].square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert relative(outputs[1], outputs[0]) < 0.02
    assert relative(gradients[1], gradients[0]) < 0.05


def test_a_bfloat16_row_is_normalized_as_exactly_as_bfloat16_allows():
    # 4096 squares added in bfloat16 would stop growing at 256
    x = torch.randn(3, 4096, generator=torch.Generator().manual_seed(2)).bfloat16().requires_grad_()
    exact = x.detach().double().requires_grad_()
    weights = torch.randn(3, 4096, generator=torch.Generator().manual_seed(3)).bfloat16()
    rows, truth = normalize(x), normalize(exact)
    (rows * weights).sum().backward()
    (truth * weights.double()).sum().backward()
    assert rows.dtype == x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(rows.double(), truth, rtol=2**-8, atol=0)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2**-7, atol=1e-4)


def test_bfloat16_attention_is_the_fused_kernels():
    attention = build(**ALL).blocks[0].attention
    random = torch.Generator().manual_seed(4)
    q, k, v, given = (torch.randn(3, 2, 16, 16, generator=random) for _ in range(4))
    results = []
    for attend in (attention.attend, scaled_dot_product_attention):
        inputs = [x.bfloat16().requires_grad_() for x in (q, k, v)]
        output = attend(*inputs)
        output.backward(given.bfloat16())
        results.append([output, *(x.grad for x in inputs)])
    for ours, fused in zip(*results, strict=True):
        assert ours.dtype == torch.bfloat16
        assert relative(ours.float(), fused.float()) < 0.02


def test_numbers_too_small_for_float32s_full_precision_are_zero():
    # in a process of its own, since it says so to every thread that is born afterwards
    code = (
        "import torch; from mpdit.runtime.devices import prepare; prepare('float32');"
        "print((torch.full((1_000_000,), 2e-38) * 0.1).count_nonzero().item())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert process.stdout.strip() == "0"


COMPILED = """
import torch
from tests.helpers.precision import ALL, build, relative, run

OPTIONS = {"norm": "rms", "qk_norm": "rms", "mlp": "swiglu", "positions": "rope"}
with torch.no_grad():
    shared = {"preset": "mods", "shared_modulation": True, **OPTIONS}
    for options, precisions in ((ALL, (False, True)), (shared, (False, True))):
        model = build(**options, depth=1)
        eager = [run(model, bf16) for bf16 in precisions]
        model.compile_blocks()
        for bf16, expected in zip(precisions, eager, strict=True):
            print(0.01 if bf16 else 1e-5, relative(run(model, bf16), expected))
"""


@pytest.mark.long
def test_compiled_blocks_are_the_same_model():
    # in a process of its own: the shapes that are checked under test cannot be traced
    process = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = process.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        most, difference = map(float, line.split())
        assert difference < most
