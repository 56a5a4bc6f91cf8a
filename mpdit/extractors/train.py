"""Train a shipped classifier: ``python -m mpdit.extractors.train digits``.

On the data set's train split, with small shifts as augmentation; the accuracy on the test split,
which took no part, goes into the file. The same command makes the same weights on one machine.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_file

from mpdit.config import DataConfig
from mpdit.data import datasets
from mpdit.extractors.classifier import Classifier, weights_file
from mpdit.randomness import generator

EPOCHS = {"digits": 60, "fashion-mnist": 12}
SHIFT = {"digits": 0, "fashion-mnist": 2}  # a pixel of an 8×8 digit is a stroke
BATCH = 100
PEAK_RATE = 2e-3


def train(name: str) -> tuple[Classifier, float]:
    """The classifier for the data set ``name``, and its accuracy on the test split."""
    data = DataConfig.model_validate(name)
    images, test = datasets.load(data, "train"), datasets.load(data, "test")
    x, y = torch.from_numpy(images.pixels), torch.from_numpy(images.labels)
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    steps = EPOCHS[name] * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for epoch in track(range(EPOCHS[name]), f"training the {name} classifier"):
        order = torch.randperm(len(x), generator=generator(0, "order", epoch))
        shifts = torch.randint(
            -SHIFT[name], SHIFT[name] + 1, (len(x) // BATCH, 2), generator=generator(0, "s", epoch)
        )
        for shift, batch in zip(shifts.tolist(), order.split(BATCH), strict=False):
            loss = F.cross_entropy(model(_shifted(x[batch], *shift)), y[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        guess = torch.cat([model(part) for part in torch.from_numpy(test.pixels).split(500)])
    return model, float((guess.argmax(1).numpy() == test.labels).mean())


def _shifted(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Shifted images, background (-1) moved in."""
    s = max(abs(rows), abs(columns))
    padded = F.pad(x, (s, s, s, s), value=-1.0)
    H, W = x.shape[-2:]
    return padded[..., s + rows : s + rows + H, s + columns : s + columns + W]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=EPOCHS)
    name = parser.parse_args().name
    classifier, accuracy = train(name)
    metadata = {"data": name, "test_accuracy": f"{accuracy:.4f}"}
    save_file(classifier.state_dict(), weights_file(name), metadata)
    print(f"{weights_file(name)}: test accuracy {accuracy:.2%}")
