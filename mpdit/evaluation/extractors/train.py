"""Train a shipped classifier: ``python -m mpdit.evaluation.extractors.train digits``.

It trains on the data set's train split, and records the accuracy on the test split in the file. On
one machine the same command makes the same weights.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mpdit.config import DataConfig
from mpdit.data import datasets
from mpdit.evaluation.extractors.classifier import Classifier, weights_file
from mpdit.progress import Progress
from mpdit.runtime.randomness import generator


class Recipe(NamedTuple):
    """Passes over the data, AdamW's peak rate, and options that depend on the images' size."""

    epochs: int
    peak_rate: float
    pool: int
    memory_format: torch.memory_format
    """``channels_last`` is a quarter faster for large images, with other last bits."""


RECIPES = {
    "digits": Recipe(60, 2e-3, 2, torch.contiguous_format),
    "fashion-mnist": Recipe(7, 4e-3, 4, torch.channels_last),
}
BATCH = 100


def train(name: str) -> tuple[Classifier, float]:
    """The classifier for the data set ``name``, and its accuracy on the test split."""
    data, recipe = DataConfig.model_validate(name), RECIPES[name]
    images, test = datasets.load(data, "train"), datasets.load(data, "test")
    x, y = torch.from_numpy(images.pixels), torch.from_numpy(images.labels)
    torch.manual_seed(0)
    model = Classifier(pool=recipe.pool).to(memory_format=recipe.memory_format)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.peak_rate, weight_decay=1e-2)
    steps = recipe.epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_rate, total_steps=steps)
    title = f"training the {name} classifier"
    with Progress(title, recipe.epochs, unit="epochs") as progress:
        for epoch in range(recipe.epochs):
            order = torch.randperm(len(x), generator=generator(0, "order", epoch))
            for batch in order[: len(x) // BATCH * BATCH].split(BATCH):
                loss = F.cross_entropy(model(x[batch]), y[batch], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            progress.advance(1)
    model.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        guess = torch.cat([model(part) for part in torch.from_numpy(test.pixels).split(500)])
    return model, float((guess.argmax(1).numpy() == test.labels).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    name = parser.parse_args().name
    classifier, accuracy = train(name)
    metadata = {"data": name, "test_accuracy": f"{accuracy:.4f}"}
    save_file(classifier.state_dict(), weights_file(name), metadata)
    print(f"{weights_file(name)}: test accuracy {accuracy:.2%}")
