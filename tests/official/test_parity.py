"""Every stored number of the official code is ours, to 1e-9 in float64.

All ``*.npz`` of tests/golden/ are checked, or of the folder that MPDIT_GOLDEN names.
"""

import numpy as np
import pytest
import torch

from mpdit.diffusion.process import Diffusion
from mpdit.ema.power import beta, gamma_of, posthoc_weights
from tests.helpers.golden import (
    DIFFUSION,
    EXACT,
    FILES,
    MODELS,
    OWN_TABLES,
    POSTHOC,
    TRAINED,
    Golden,
    close,
)

OF_A_ROOT = 2**-22
"""The official DDIM takes square roots in float32, whose last bit is another on another CPU."""


@pytest.fixture(params=MODELS, ids=lambda path: path.stem)
def golden(request) -> Golden:
    return Golden(request.param)


def test_there_are_golden_models():
    assert MODELS


def test_every_file_is_understood():
    assert {path.stem for path in FILES} - {path.stem for path in (*MODELS, *TRAINED)} <= {
        "diffusion",
        "posthoc_ema",
    }


def test_the_output_is_the_official_one(golden):
    with torch.no_grad():
        assert close(golden.model()(*golden.inputs()), golden["out_eval"], EXACT)


def test_the_output_with_our_own_tables_is_nearly_the_official_one(golden):
    with torch.no_grad():
        output = golden.model(stored_tables=False)(*golden.inputs())
    assert close(output, golden["out_eval"], OWN_TABLES)


def test_the_guided_output_is_the_official_one(golden):
    model, C = golden.model(), golden.data.channels
    x, t, y = golden["x"][:2], torch.tensor([500, 300]), torch.tensor([1, 9])
    with torch.no_grad():
        guided = model.guided(x, t, y, 1.5)
        null = model(x, t, torch.full_like(y, model.null_class))
    halves = guided, torch.cat((guided[:, :C], null[:, C:]), dim=1)
    assert close(torch.cat(halves), golden["out_cfg"], EXACT)


def test_a_training_step_is_the_official_one(golden):
    model = golden.model()
    model.normalize_weights()
    for name, stored in golden.parameters("param_after_forward/").items():
        assert close(model.get_parameter(name), stored, EXACT), name
    output = model(*golden.inputs())
    assert close(output, golden["out_train"], EXACT)
    (output * golden["loss_weight"]).sum().backward()
    gradients = golden.parameters("grad/")
    for name, parameter in model.named_parameters():
        # a parameter that nothing depends on has no gradient here, and none or zero there
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert close(ours, gradients.get(name, torch.zeros_like(ours)), EXACT), name


@pytest.mark.skipif(not DIFFUSION.exists(), reason="no diffusion.npz")
def test_the_diffusion_process_is_the_official_one():
    golden = {key: torch.from_numpy(value) for key, value in np.load(DIFFUSION).items()}
    x0, t, noise, x_t = (golden[key] for key in ("x0", "t", "noise", "x_t"))
    diffusion = Diffusion()
    assert close(diffusion.q_sample(x0, t, noise), x_t, EXACT)
    terms = diffusion.loss(golden["model_output"], x0, x_t, t, noise)
    for ours, theirs in {"loss": "loss", "mse": "mse", "vlb": "vb"}.items():
        assert close(terms[ours], golden[f"loss/{theirs}"], EXACT), ours


def respaced() -> list[str]:
    stored = np.load(DIFFUSION) if DIFFUSION.exists() else {}
    return [key.split("/")[0] for key in stored if key.endswith("/timestep_map")]


@pytest.mark.parametrize("name", respaced())
def test_a_respaced_chain_is_the_official_one(name):
    stored = {key: torch.from_numpy(value) for key, value in np.load(DIFFUSION).items()}
    golden = {key.removeprefix(f"{name}/"): value for key, value in stored.items()}
    steps = int(name[4:])
    ddim = name.startswith("ddim")  # every k-th timestep, which no solver of ours takes
    chain = Diffusion(range(0, 1000, 1000 // steps)) if ddim else Diffusion().respace(steps)
    i, output, x = golden["t"], stored["model_output"], stored["x0"]
    assert torch.equal(chain.timestep_map, golden["timestep_map"])
    assert torch.equal(chain.timestep_map[i], golden["t_seen_by_model"])
    assert close(chain.betas, golden["betas"].float(), EXACT)
    prediction = chain.p_mean_variance(output, x, i)
    for field in ("mean", "log_variance", "pred_xstart"):
        assert close(getattr(prediction, field), golden[field], EXACT), field
    assert close(chain.ddim_step(output, x, i), golden["ddim_eta0_sample"], OF_A_ROOT)


@pytest.mark.skipif(not POSTHOC.exists(), reason="no posthoc_ema.npz")
def test_the_averages_are_edm2s():
    golden = np.load(POSTHOC)
    gammas = [gamma_of(std) for std in golden["std"]]
    np.testing.assert_allclose(gammas, golden["gamma"], rtol=EXACT)
    for key in (key for key in golden if key.startswith("beta_std")):
        gamma = gamma_of(float(key.removeprefix("beta_std")))
        np.testing.assert_allclose([beta(int(t), gamma) for t in golden["t"]], golden[key], EXACT)
    snapshots, wanted = ("in_step", "in_std"), ("out_step", "out_std")
    weights = posthoc_weights(*(golden[key].tolist() for key in (*snapshots, *wanted)))
    assert close(torch.from_numpy(weights), torch.from_numpy(golden["weights"]), EXACT)
