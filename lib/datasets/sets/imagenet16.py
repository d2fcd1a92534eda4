"""The 16 entry-level categories of ImageNet, and the two sets that ask for them: cue conflict and silhouettes.

Geirhos et al. 2018 (arXiv:1808.08750) and 2019 (arXiv:1811.12231); intermediate-layers paper, section 3.5. A category is
several classes of ImageNet; `members` says which outputs of a network answer for it.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch

from lib.core.errors import UserError
from lib.core.text import some
from lib.datasets import Options, catalogue
from lib.datasets.sets.imagenet import training
from lib.datasets.split import Split
from lib.datasets.storage import image_folders
from lib.datasets.storage.folders import from_listing

WNID = re.compile(r"n\d{8}")

# WordNet ids of each category, the published lists: 207 of the 231 are among the thousand classes of ILSVRC 2012.
_LISTS = """
    airplane n02690373 n03955296 n13861050 n13941806
    bear     n02132136 n02133161 n02134084 n02134418
    bicycle  n02835271 n03792782
    bird     n01321123 n01514859 n01792640 n07646067 n01530575 n01531178 n01532829 n01534433 n01537544 n01558993
             n01562265 n01560419 n01582220 n10281276 n01592084 n01601694 n01614925 n01616318 n01622779 n01795545
             n01796340 n01797886 n01798484 n01817953 n01818515 n01819313 n01820546 n01824575 n01828970 n01829413
             n01833805 n01843065 n01843383 n01855032 n01855672 n07646821 n01860187 n02002556 n02002724 n02006656
             n02007558 n02009229 n02009912 n02011460 n02013706 n02017213 n02018207 n02018795 n02025239 n02027492
             n02028035 n02033041 n02037110 n02051845 n02056570
    boat     n02951358 n03344393 n03662601 n04273569 n04612373 n04612504
    bottle   n02823428 n03937543 n03983396 n04557648 n04560804 n04579145 n04591713
    car      n02814533 n03100240 n03100346 n13419325 n04285008
    cat      n02122878 n02123045 n02123159 n02126465 n02123394 n02123597 n02124075 n02125311
    chair    n02791124 n03376595 n04099969 n00605023 n04429376
    clock    n02708093 n03196217 n04548280
    dog      n02085782 n02085936 n02086079 n02086240 n02086646 n02086910 n02087046 n02087394 n02088094 n02088238
             n02088364 n02088466 n02088632 n02089078 n02089867 n02089973 n02090379 n02090622 n02090721 n02091032
             n02091134 n02091244 n02091467 n02091635 n02091831 n02092002 n02092339 n02093256 n02093428 n02093647
             n02093754 n02093859 n02093991 n02094114 n02094258 n02094433 n02095314 n02095570 n02095889 n02096051
             n02096294 n02096437 n02096585 n02097047 n02097130 n02097209 n02097298 n02097474 n02097658 n02098105
             n02098286 n02099267 n02099429 n02099601 n02099712 n02099849 n02100236 n02100583 n02100735 n02100877
             n02101006 n02101388 n02101556 n02102040 n02102177 n02102318 n02102480 n02102973 n02104029 n02104365
             n02105056 n02105162 n02105251 n02105505 n02105641 n02105855 n02106030 n02106166 n02106382 n02106550
             n02106662 n02107142 n02107312 n02107574 n02107683 n02107908 n02108000 n02108422 n02108551 n02108915
             n02109047 n02109525 n02109961 n02110063 n02110185 n02110627 n02110806 n02110958 n02111129 n02111277
             n08825211 n02111500 n02112018 n02112350 n02112706 n02113023 n02113624 n02113712 n02113799 n02113978
    elephant n02504013 n02504458
    keyboard n03085013 n04505470
    knife    n03041632
    oven     n03259401 n04111414 n04111531
    truck    n03345487 n03417042 n03770679 n03796401 n00319176 n01016201 n03930630 n03930777 n05061003 n06547832
             n10432053 n03977966 n04461696 n04467665
"""
WNIDS_16 = {name: tuple(wnids.split()) for name, wnids in re.findall(r"([a-z]+) +((?:n\d{8}\s+)+)", _LISTS)}
CATEGORIES = tuple(WNIDS_16)
TEXTURES = ("another's texture", "its own texture")


def imagenet16(root: Path, split: str, options: Options) -> Split:
    """ImageNet's images of these classes, with their category as label; on the classes of which there are folders."""
    folder = training(root)
    present = set(image_folders.class_folders(image_folders.splits(folder)["train"]))
    category = {wnid: label for label, wnids in enumerate(WNIDS_16.values()) for wnid in wnids if wnid in present}
    if absent := [name for label, name in enumerate(CATEGORIES) if label not in category.values()]:
        raise UserError(f"{folder}: lacks the class folders of {some(absent)}")
    listing = image_folders.listing(folder, split, tuple(category))
    labels = tuple(category[listing.classes[label]] for label in listing.labels)
    return from_listing("imagenet16", split, replace(listing, labels=labels, classes=CATEGORIES), options)


def cue_conflict(root: Path, split: str, options: Options) -> Split:
    """The shapes of one category in the texture of another; the label is the shape's, the group whether they differ.

    `<category>/<shape><n>-<texture><m>.png`, 80 images per category, 5 of them with the texture of their own category.
    """
    listing = _pictures("cue-conflict", root)
    textures = [_texture(listing.folder / file) for file in listing.files]
    own = torch.tensor([texture == CATEGORIES[label] for texture, label in zip(textures, listing.labels, strict=True)])
    return replace(from_listing("cue-conflict", split, listing, options), groups=own.long(), group_names=TEXTURES)


def silhouette(root: Path, split: str, options: Options) -> Split:
    """Filled outlines of objects, `<category>/<image>.png`, 10 images per category."""
    return from_listing("silhouette", split, _pictures("silhouette", root), options)


def members(classes: tuple[str, ...], outputs: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """For each class the numbers of a network's outputs that answer for it; () if for one of them none does.

    classes    WordNet ids, or entry-level categories, which several ids answer for
    outputs    what the network's outputs are called; a thousand that are not called by WordNet ids are taken to be those of
               ILSVRC 2012, sorted by id, as in all published weights
    """
    if not all(name in WNIDS_16 or WNID.fullmatch(name) for name in classes):
        return ()
    if len(outputs) == 1000 and not WNID.fullmatch(outputs[0]):
        from timm.data import ImageNetInfo  # slow to import

        outputs = ImageNetInfo().label_names()
    number = {name: place for place, name in enumerate(outputs)}
    answering = tuple(tuple(number[wnid] for wnid in WNIDS_16.get(name, (name,)) if wnid in number) for name in classes)
    return answering if all(answering) else ()


def _pictures(name: str, root: Path) -> image_folders.Listing:
    """The images in the folders of the categories, all 16 of them."""
    (folder,) = catalogue.require(name, catalogue.KNOWN[name], root)
    return image_folders.listing(folder, "all", CATEGORIES)


def _texture(file: Path) -> str:
    match = re.search(r"-([a-z]+)\d+$", file.stem)
    if not match or match[1] not in CATEGORIES:
        raise UserError(f"{file}: is not called <shape><n>-<texture><m>.png, such as cat1-dog2.png")
    return match[1]
