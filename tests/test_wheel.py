"""The built wheel, apart from the checkout: whether all that is needed at run time is in it."""

import os
import subprocess
import sys
import zipfile

import pytest
from archives_lib import REPOSITORY


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Builds the wheel and unpacks it where Python finds it instead of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def run(unpacked, cwd, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_demo_runs_from_the_wheel(unpacked, tmp_path):
    result = run(
        unpacked, tmp_path, "-m", "imagenet_family", "demo", "--output_dir", str(tmp_path / "demo")
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert str(unpacked) in result.stdout  # it is the wheel's fakes that were built
    assert "imagenet_v2/topimages/3.0.0 test: 10 examples" in result.stdout
    assert (tmp_path / "demo" / "examples.png").stat().st_size > 10_000


def test_every_module_is_in_the_wheel_and_says_that_it_has_types(unpacked):
    checkout = REPOSITORY / "imagenet_family"
    modules = {path.relative_to(checkout) for path in checkout.rglob("*.py")}
    package = unpacked / "imagenet_family"
    assert {path.relative_to(package) for path in package.rglob("*.py")} == modules
    assert (package / "py.typed").exists()


def test_checksums_licence_and_metadata_are_in_the_wheel(unpacked, tmp_path):
    code = (
        "import imagenet_family, tensorflow_datasets as tfds\n"
        "print(imagenet_family.__file__)\n"
        "for name in imagenet_family.DATASETS:\n"
        "    cls = tfds.builder_cls(name)\n"
        "    assert cls.url_infos and cls.get_metadata().description, name\n"
    )
    result = run(unpacked, tmp_path, "-c", code)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.startswith(str(unpacked))
    assert list(unpacked.glob("*.dist-info/licenses/LICENSE"))
