import torch
from conftest import tiny_config

from mpdit.diffusion import Diffusion
from mpdit.sample import draw
from mpdit.train import build_model

CPU = torch.device("cpu")


def test_a_sample_is_the_same_image_whatever_it_is_batched_with() -> None:
    config = tiny_config()
    model = build_model(config, CPU)
    # at initialization the output is zero: give it something to say
    torch.nn.init.normal_(model.final.linear.weight, std=0.1)
    together = draw(model, Diffusion(), config, range(6), CPU)
    alone = torch.cat([draw(model, Diffusion(), config, range(i, i + 1), CPU) for i in range(6)])
    # one batch's sums round otherwise than another's, far below one of 256 levels
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
