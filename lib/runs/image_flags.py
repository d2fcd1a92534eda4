"""The flags for the size, normalisation and classes of the images that a network is given.

In training they decide it; a checkpoint without a sidecar needs them again. Free of torch.
"""

import dataclasses
from dataclasses import dataclass

from lib.core.errors import UsageError
from lib.datasets import names
from lib.runs.cli import DeviceConfig, at_least, flag


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(DeviceConfig):
    """The flags of every script that gives images to a network."""

    image_size: int | None = flag(
        None,
        check=at_least(1),
        help="side in pixels to which images are resized, where no sidecar states it; default: as they are, "
        "or what the network takes",
        group="data",
    )
    upscale: bool = flag(False, help="resize images to 224 px: --image-size 224", group="data")
    upscale_padding: bool = flag(
        False, help="resize images to 112 px, --image-size 112, in a frame of 56 black pixels on each side", group="data"
    )
    subsample_classes: int = flag(
        0,
        check=at_least(0),
        help="use only this many of the classes: -d NAME becomes NAME-k<n>, their name for every script; 0: all",
        group="data",
    )
    class_sample_seed: int | None = flag(
        None,
        check=at_least(0),
        help="seed of the classes that --subsample-classes draws (NAME-k<n>s<seed>); default: the first classes",
        group="data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.image_size is not None) + self.upscale + self.upscale_padding > 1:
            raise UsageError("--image-size, --upscale and --upscale-padding exclude one another")
        if self.class_sample_seed is not None and not self.subsample_classes:
            raise UsageError("--class-sample-seed is about --subsample-classes, which is 0")

    @classmethod
    def settings(cls, values: dict) -> dict:
        """A data set with a size in its name is that set at that size, and a class subset's name has number and seed.

        The name takes the place of `--subsample-classes` and `--class-sample-seed`.
        """
        values = cls._enlarged(values)
        count, seed = (cls.value(values, name) for name in ("subsample_classes", "class_sample_seed"))
        if count <= 0 or (seed is not None and seed < 0):  # nothing to name, or a value that is refused
            return super().settings(values)
        data = cls.value(values, "dataset")
        given = data if isinstance(data, tuple) else (data,)
        if not all(given) or not given:
            raise UsageError("--subsample-classes is about -d, which must be given")
        try:
            subsets = tuple(names.subset(name, count, seed) for name in given)
        except UsageError as error:
            raise UsageError(f"--subsample-classes {count}: {error}") from None
        named = {"dataset": subsets if isinstance(data, tuple) else subsets[0], "subsample_classes": 0}
        return super().settings(values | named | {"class_sample_seed": None})

    @classmethod
    def _enlarged(cls, values: dict) -> dict:
        """The settings that `cifar10_large` and its like stand for. Raises `UsageError` beside another size, or set."""
        fields = {field.name for field in dataclasses.fields(cls)}
        data = cls.value(values, "dataset") if "dataset" in fields else ""
        given = [name for name in (data if isinstance(data, tuple | list) else (data,)) if name]
        large = [name for name in given if names.enlarged(name)]
        if not large:
            return values
        size, other = names.loaded_size(large[0]), [name for name in given if not names.enlarged(name)]
        sides = {"image_size": cls.value(values, "image_size"), "upscale": 224, "upscale_padding": 112}
        stated = [side for name, side in sides.items() if cls.value(values, name)]
        if stated not in ([], [size]) or other:
            raise UsageError(
                f"-d {large[0]}: its images have {size} px"
                + (f", not {stated[0]}" if stated else f"; {other[0]} is another command")
            )
        plain = tuple(str(names.parse(name)) for name in given)
        values = values | {"dataset": plain if isinstance(data, tuple | list) else plain[0], "image_size": size}
        values |= {name: False for name in ("upscale", "upscale_padding") if name in values}
        if "augmentation" in fields:
            values.setdefault("augmentation", names.LARGE_AUGMENTATION)
        return values

    @property
    def stated_size(self) -> int | None:
        """The side to which images are resized, if a flag says so."""
        return 224 if self.upscale else 112 if self.upscale_padding else self.image_size

    @property
    def padding(self) -> int:
        """The black pixels around an image on each side."""
        return 56 if self.upscale_padding else 0
