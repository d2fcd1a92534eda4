"""Whether two sets share images."""

import hashlib
from collections.abc import Iterator

from lib.core.errors import UserError
from lib.datasets.split import Split


def shared(first: Split, second: Split) -> int:
    """How many images of `second` are, byte for byte, also in `first`.

    0 where sizes differ or images are decoded as they are needed: those are not compared.
    """
    if first.lazy or second.lazy or first.images.shape[1:] != second.images.shape[1:]:
        return 0
    digests = set(_digests(first))
    return sum(digest in digests for digest in _digests(second))


def refuse(outliers: Split, flag: str, *splits: Split) -> None:
    """Raises `UserError` for outliers, named by `flag`, of which some are images of one of the splits."""
    for split in splits:
        if count := shared(split, outliers):
            raise UserError(
                f"{flag}: {count} of its images are in {split.name}:{split.split} of -d; outliers must not be data"
            )


def _digests(split: Split) -> Iterator[bytes]:
    for image in split.images_in_memory.cpu().contiguous().numpy():
        yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()
