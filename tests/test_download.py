"""Fetching, unpacking and verifying data sets."""

import gzip
import hashlib
import http.server
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from conftest import SHARED_DATA
from layouts import (
    FACES,
    PARTS,
    WATERBIRDS,
    levels,
    load,
    tar,
    write_celeba,
    write_cifar10,
    write_corrupted,
    write_mnist,
    write_tree,
    write_waterbirds,
)

from lib.core.errors import UserError
from lib.datasets import catalogue
from lib.datasets.storage import download, unpack, verify


def cifar10_archive(tmp_path: Path) -> bytes:
    write_cifar10(tmp_path / "source")
    folder = tmp_path / "source" / "cifar-10-batches-py"
    return tar({f"cifar-10-batches-py/{file.name}": file.read_bytes() for file in folder.iterdir()})


def serve(monkeypatch, tmp_path: Path, content: bytes, md5: str | None = None) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    url = (tmp_path / "cifar-10-python.tar.gz").as_uri()
    archive = download.Archive((url,), md5 or hashlib.md5(content).hexdigest(), "cifar-10-batches-py")
    monkeypatch.setattr(download, "archives", lambda name: [archive])


def test_prepare_downloads_checks_and_unpacks(tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path, cifar10_archive(tmp_path))
    root, seen = tmp_path / "data", []
    files = download.prepare("cifar10-wo0:ood", root, lambda *progress: seen.append(progress))
    assert len(files) == 7 and seen[-1][1] == seen[-1][2]
    assert len(load("cifar10", root)) == 20
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]  # nothing is left behind
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    download.prepare("cifar10", root)
    assert len(load("cifar10", root)) == 20
    monkeypatch.setattr(download, "archives", None)  # what is whole is not fetched again
    assert download.prepare("cifar10", root) == files


def test_prepare_unpacks_single_files(tmp_path, monkeypatch):
    write_mnist(tmp_path / "source")
    archives = []
    for file in sorted((tmp_path / "source" / "MNIST" / "raw").iterdir()):
        packed = tmp_path / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes()))
        archives.append(download.Archive((packed.as_uri(),), download.file_md5(packed), f"MNIST/raw/{file.name}"))
    monkeypatch.setattr(download, "archives", lambda name: archives)
    download.prepare("mnist", tmp_path / "data")
    assert len(load("mnist", tmp_path / "data", "train")) == 40


def test_a_wrong_checksum_leaves_nothing(tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path, cifar10_archive(tmp_path), md5="0" * 32)
    with pytest.raises(UserError, match="the MD5 is .* instead of 000"):
        download.prepare("cifar10", tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_sets_that_cannot_be_downloaded_say_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match="imagenet: cannot be downloaded from here; put its class folders into"):
        download.prepare("imagenet", tmp_path)
    assert download.prepare("digits", tmp_path) == []
    assert download.registered("cifar100-c/fog-3") == "cifar100-c"
    with pytest.raises(UserError, match="not a registered data set"):
        download.prepare("pets", tmp_path)


def test_the_addresses_of_all_downloads_are_known():
    for name, entry in catalogue.KNOWN.items():
        if entry.obtain == catalogue.PREPARE:
            for archive in download.archives(name):
                assert len(archive.md5) == (0 if name == "waterbirds" else 32)  # none is published
                assert archive.urls and download._beneath(archive.target, entry)


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves `content`, from the middle if asked, and breaks off after `most` bytes."""

    content, most, asked = b"", 10**9, []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.asked.append(start)
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.most])

    def log_message(self, *arguments):
        pass


def test_an_interrupted_download_continues_where_it_stopped(tmp_path):
    Ranges.content, Ranges.most, Ranges.asked = levels(5000).tobytes(), 2000, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.bin?download=1"
        archive = download.Archive((url,), hashlib.md5(Ranges.content).hexdigest(), "x.bin")
        for _ in range(2):
            with pytest.raises(UserError, match="x.bin: download failed .*the same command tries it again"):
                download.download(archive, tmp_path)
        assert download.download(archive, tmp_path).read_bytes() == Ranges.content
        assert Ranges.asked == [0, 2000, 4000]
        (tmp_path / "x.bin").rename(tmp_path / "x.bin.part")  # stopped after the last byte
        assert download.download(archive, tmp_path).read_bytes() == Ranges.content
        server.shutdown()


@pytest.mark.parametrize("name", ["/etc/harm", "../harm", "a/../../harm"])
def test_archives_cannot_write_outside_their_folder(tmp_path, name):
    (tmp_path / "x.tar.gz").write_bytes(tar({name: b"harm"}))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"harm")
    for file in ("x.tar.gz", "x.zip"):
        inside = tmp_path / f"inside-{file}"
        inside.mkdir()
        with pytest.raises(UserError, match="outside the folder"):
            unpack.unpack(tmp_path / file, inside, "x")
        assert not list(inside.iterdir())


def test_links_and_bombs_are_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UserError, match="is a link"):
        unpack.unpack(tmp_path / "link.tar", tmp_path, "x")
    for file, content in (("bomb.tar.gz", tar({"x": bytes(1 << 24)})), ("bomb.gz", gzip.compress(bytes(1 << 24)))):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(UserError, match="more than is plausible"):
            unpack.unpack(tmp_path / file, tmp_path, "x")
    (tmp_path / "cut.tar.gz").write_bytes(tar({"x": levels(5000).tobytes()})[:1000])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack.unpack(tmp_path / "cut.tar.gz", tmp_path, "x")


def test_verify_counts_images_and_compares_checksums(tmp_path):
    assert all(finding.good for finding in verify.verify("digits", tmp_path, cache_dir=tmp_path / "cache"))
    write_cifar10(tmp_path)
    findings = {finding.what: finding for finding in verify.verify("cifar10", tmp_path)}
    assert not findings["md5 of test_batch"].good
    assert (findings["images in train"].expected, findings["images in train"].found) == ("50,000", "100")
    write_corrupted(tmp_path, "CIFAR-10-C", 20, 10)
    assert not any(finding.good for finding in verify.verify("cifar10-c/fog-3", tmp_path))
    write_tree(tmp_path / "large", size=(120, 100))
    for name in ("large", f"folder={tmp_path}/large", f"folder={tmp_path}/large:test"):
        assert [f.found for f in verify.verify(name, tmp_path)] == ["6", "6"]
    broken = tmp_path / "large" / "test" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(UserError, match="dog/1.png: cannot be decoded"):
        verify.verify("large", tmp_path)


@pytest.mark.skipif(not (SHARED_DATA / "MNIST" / "raw").is_dir(), reason="needs SHARED_DATA")
def test_the_real_mnist_is_whole():
    assert all(finding.good for finding in verify.verify("mnist", SHARED_DATA))


def test_archives_that_lie_under_the_root_are_unpacked_and_kept(tmp_path):
    folder = write_waterbirds(tmp_path / "source")
    files = {file.relative_to(folder.parent).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    root = tmp_path / "data"
    root.mkdir()
    (root / f"{WATERBIRDS}.tar.gz").write_bytes(tar(files))
    assert download.prepare("waterbirds-squash", root) == [root / WATERBIRDS]
    assert len(load("waterbirds", root, "train")) == 7 and (root / f"{WATERBIRDS}.tar.gz").is_file()
    write_tree(tmp_path / "source" / "imagenet-a", ("",), ("n01", "n02"))
    (root / "imagenet-a.tar").write_bytes(
        tar(
            {
                f"imagenet-a/{name}/{number}.png": (tmp_path / "source" / "imagenet-a" / name / f"{number}.png").read_bytes()
                for name in ("n01", "n02")
                for number in range(3)
            }
        )
    )
    download.prepare("imagenet-a", root)
    assert load("imagenet-a", root).classes == ("n01", "n02")
    words = "imagenet-r: cannot be downloaded from here; put the authors' imagenet-r.tar into .*, and .* -data .* unpacks it"
    with pytest.raises(UserError, match=words):
        download.prepare("imagenet-r", root)


def test_the_faces_are_checked_and_unpacked_beside_their_lists(tmp_path, monkeypatch):
    files = write_celeba(tmp_path / "source", FACES, PARTS)
    root, source = tmp_path / "data", tmp_path / "source" / "celeba"
    (root / "celeba").mkdir(parents=True)
    for file in source.glob("*.txt"):
        (root / "celeba" / file.name).write_text(file.read_text())
    packed = root / "celeba" / "img_align_celeba.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in files:
            archive.write(source / "img_align_celeba" / file, f"img_align_celeba/{file}")
    with pytest.raises(UserError, match="img_align_celeba.zip: the MD5 is .* instead of 00d2c5bc6d35e252742224ab0c1e8fcb"):
        download.prepare("celeba", root)
    assert not (root / "celeba" / "img_align_celeba").exists()
    monkeypatch.setattr(download, "checked", lambda archive, file: file)
    download.prepare("multiceleba", root)
    assert len(load("celeba:test", root)) == 6


def test_a_cut_off_archive_leaves_nothing_and_says_so(tmp_path):
    (tmp_path / f"{WATERBIRDS}.tar.gz").write_bytes(tar({f"{WATERBIRDS}/metadata.csv": levels(4000).tobytes()})[:900])
    with pytest.raises(UserError, match=f"{WATERBIRDS}.tar.gz: cannot be unpacked"):
        download.prepare("waterbirds", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{WATERBIRDS}.tar.gz"]
