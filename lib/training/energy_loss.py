"""Training with the energies of inner layers: cross-entropy, and low energy for the data but high for outliers.

The paper calls the idea R-EBO and leaves its form open (Guglielmo & Masana, CVWW 2025); this is our specification
(section 2.6), a generalisation of Liu et al., NeurIPS 2020, section 3.3, from the logits to a set S of layers:

    L = CE + lambda/|S| sum_l (mean relu(E_l(x_in) - m_in)^2 + mean relu(m_out - E_l(x_out))^2)          hinge
    L = CE + lambda/|S| sum_l mean_ij softplus(m_out - m_in + E_l(x_in,i) - E_l(x_out,j))                 contrastive

Two traps. Before a batch normalisation the scale of a layer is free, so its energies could be driven apart by growing
weights that change nothing: margins are in units of the data's own running mean and deviation, and raw ones are refused
there. And outliers in the batch change the batch statistics of the data: they can have a batch of their own, which then
leaves the running statistics alone.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.core.errors import UserError
from lib.core.registry import resolve
from lib.datasets import overlap
from lib.datasets.catalogue import AUGMENTATIONS
from lib.datasets.split import Split
from lib.models import cutting
from lib.ood.layer_energies import energy
from lib.runs import loading
from lib.training import losses
from lib.training.flags import TrainingConfig

MARGINS = (1.0, 4.0)  # in standard deviations of the data's energies
MOMENTUM = 0.1  # of the running mean and variance, that of PyTorch's batch normalisation


def energy_layers(config: TrainingConfig) -> losses.Loss:
    """Cross-entropy and the energy term, by the flags of `exec_train.py`."""
    if config.energy_lambda == 0:
        return losses.cross_entropy(config)
    outliers, augment = _outliers(config)
    inside, outside = config.energy_margins or MARGINS
    return EnergyLoss(
        outliers=outliers,
        augment=augment,
        weight=config.energy_lambda,
        term=FORMS[config.form],
        patterns=config.energy_layers,
        margins=(inside, outside),
        raw=config.margins_in == "raw",
        joint=config.outlier_batches == "joint",
        label_smoothing=config.label_smoothing,
    )


@dataclass(kw_only=True)
class EnergyLoss:
    """Cross-entropy, and the term between the energies of the images and of as many outliers.

    weight     of the term: lambda
    patterns   of `--energy-layers`; they choose the layers at the first batch
    margins    (m_in, m_out), in standard deviations of the images' energies, or `raw`
    joint      whether images and outliers pass in one batch
    state      the running mean and variance of the images' energies
    """

    outliers: Split
    augment: Callable[[Tensor, torch.Generator], Tensor]
    weight: float
    term: Callable[[Tensor, Tensor, float, float], Tensor]
    patterns: tuple[str, ...] = ()
    margins: tuple[float, float] = MARGINS
    raw: bool = False
    joint: bool = True
    label_smoothing: float = 0.0
    state: dict[str, Tensor] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, draws: losses.Draws) -> tuple[Tensor, Tensor]:
        if not self.layers:
            self.layers = choose_layers(network, images, self.patterns, self.raw)
        others = self._outliers_like(images, draws)
        with cutting.record(network, self.layers, reduce=energy) as outputs:
            if self.joint:
                logits = network(torch.cat([images, others]))[: len(images)]
                inside, outside = torch.cat(list(outputs.values()), 1).split([len(images), len(others)])
            else:
                logits = network(images)
                inside = torch.cat(list(outputs.values()), 1)
                with own_statistics(network):
                    network(others)
                outside = torch.cat(list(outputs.values()), 1)
        if not self.raw:
            inside, outside = _in_units_of_data(inside, outside, self.state)
        term = self.term(inside, outside, *self.margins)
        task = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        return task + self.weight * term, logits

    def _outliers_like(self, images: Tensor, draws: losses.Draws) -> Tensor:
        """As many outliers, drawn with replacement, of the same shape and on the same device."""
        if images.device != self.outliers.labels.device:
            self.outliers = self.outliers.to(images.device)
        # drawn on the CPU, as a step would wait for a draw on a GPU before it could fetch images of the CPU
        chosen = torch.randint(len(self.outliers), (len(images),), generator=draws("outliers", device=torch.device("cpu")))
        others, _, _ = next(
            self.outliers.batches(
                len(chosen), device=images.device, order=chosen, channels=images.shape[1], size=images.shape[-1]
            )
        )
        return self.augment(others, draws("augmentation of outliers"))


def hinge(inside: Tensor, outside: Tensor, m_in: float, m_out: float) -> Tensor:
    """The mean over layers of the squared excess over m_in, and of the squared shortfall of m_out; (b, L) and (c, L)."""
    return (F.relu(inside - m_in).square().mean(0) + F.relu(m_out - outside).square().mean(0)).mean()


def contrastive(inside: Tensor, outside: Tensor, m_in: float, m_out: float) -> Tensor:
    """The mean over layers and pairs of softplus(m_out - m_in + E_in - E_out); (b, L) and (c, L)."""
    return F.softplus(m_out - m_in + inside[:, None] - outside[None]).mean()


FORMS = {"hinge": hinge, "contrastive": contrastive}


def choose_layers(network: nn.Module, images: Tensor, patterns: tuple[str, ...], raw: bool) -> list[str]:
    """The layers of the term: those that `--energy-layers` names, else all batch normalisations and the last linear layer.

    Raises `UserError` for raw energies of a layer that feeds a batch normalisation.
    """
    listed = cutting.layers(network, images[:2])
    if patterns:
        chosen = cutting.tapped(listed, patterns, "--energy-layers")
    else:
        chosen = [layer.name for layer in listed if layer.kind.startswith("BatchNorm") and not layer.untapped]
        chosen += [layer.name for layer in listed if layer.kind == "Linear"][-1:]
    if raw and (scaleless := [name for name in chosen if name in before_batchnorm(network, images[:2])]):
        raise UserError(
            f"--margins-in raw: {scaleless[0]} feeds a batch normalisation, so its scale means nothing; take "
            "the normalisation's own output, or --margins-in z"
        )
    return chosen


def before_batchnorm(network: nn.Module, images: Tensor) -> set[str]:
    """The modules whose output is, as it is, the input of a batch normalisation."""
    body = network.body if isinstance(network, cutting.Normalized) else network
    norms = [name for name, module in body.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    others = [name for name, _ in body.named_modules() if name and name not in norms]

    def itself(tensor):
        return tensor

    with (
        cutting.evaluating(network),  # dropout must draw nothing here, and no statistics may move
        torch.no_grad(),
        cutting.record(network, others, reduce=itself, raw=True) as outputs,
        cutting.record(network, norms, reduce=itself, inputs=True, raw=True) as entering,
    ):
        network(images)
    return {
        name.partition("@")[0] for name, output in outputs.items() if any(output is tensor for tensor in entering.values())
    }


@contextlib.contextmanager
def own_statistics(network: nn.Module) -> Generator[None]:
    """A batch that passes meanwhile is normalised by itself and leaves no trace in the running statistics."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    tracking = [module.track_running_stats for module in norms]
    for module in norms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module, tracked in zip(norms, tracking, strict=True):
            module.track_running_stats = tracked


def _in_units_of_data(inside: Tensor, outside: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Energies in standard deviations from the running mean of the data's, which this batch moves on."""
    with torch.no_grad():
        mean, variance = inside.mean(0), inside.var(0, correction=0)
        weight = MOMENTUM if state else 1.0
        for key, value in (("mean", mean), ("variance", variance)):
            before = state.get(key, value).to(value.device)
            state[key] = before + weight * (value - before)
    deviation = state["variance"].clamp(min=1e-12).sqrt()
    return (inside - state["mean"]) / deviation, (outside - state["mean"]) / deviation


def _outliers(config: TrainingConfig) -> tuple[Split, Callable[[Tensor, torch.Generator], Tensor]]:
    """The outliers and the augmentation that the training images get, too: otherwise it would tell the two apart."""
    outliers = loading.load_split(config, config.outliers, "train", image_size=config.stated_size)
    train_split = loading.load_split(config, config.dataset, "train", image_size=config.stated_size)
    test_split = loading.load_split(config, config.dataset, "test", image_size=config.stated_size)
    overlap.refuse(outliers, f"--outliers {config.outliers}", train_split, test_split)
    name = train_split.augmentation if config.augmentation == "auto" else config.augmentation
    return outliers, resolve(AUGMENTATIONS[name])
