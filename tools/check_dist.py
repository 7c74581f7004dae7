"""Is what would be published complete, and nothing else in it?

    python -m tools.check_dist [--version VERSION] [--release] FILE...

Compares an sdist with the tracked files, byte for byte, and a wheel with the modules, stubs and
extensions that they come to; with --release, all of them with what a release has. A Linux wheel
must run on every Linux since 2014 (manylinux_2_17; 2_28 at most), so its extensions may not call
dl*(3), which lies elsewhere since glibc 2.34.
"""

import argparse
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
IDENTIFIERS = Path(__file__).with_name("wheel_identifiers.txt")
_MAX_BYTES = 1_500_000
_MAX_GLIBC = (2, 28)
_EXTENSION = re.compile(r"\.(cpython-|abi3|cp3).*\.(so|pyd)$")
_DIST_INFO = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE", "top_level.txt"}
_NOT_PUBLISHED = ".git"  # .gitignore, .github/
_PLATFORM = re.compile(
    r"(manylinux|musllinux|macosx|win)(?=[0-9_]).*?_(x86_64|aarch64|arm64|amd64)"
)
_LOADER = re.compile(r"dl(m?open|v?sym|close|error|addr1?|info|_iterate_phdr)$")


def _tracked(folder: Path) -> set[str]:
    command = ["git", "ls-files"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines())


def _expect(what: str, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        sys.exit(f"{what}: missing {sorted(wanted - found)}, not expected {sorted(found - wanted)}")
    print(f"{what}: {len(found)} files, as they should be")


def check_sdist(sdist: Path) -> None:
    """Check that the tracked files are in it, and neither generated C nor binaries."""
    files: dict[str, bytes] = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            content = archive.extractfile(member)  # None: no file
            if content is not None:
                files[member.name.split("/", 1)[1]] = content.read()
    made = {"PKG-INFO", "setup.cfg"} | {name for name in files if ".egg-info/" in name}
    published = {name for name in _tracked(ROOT) if not name.startswith(_NOT_PUBLISHED)}
    _expect(sdist.name, files.keys() - made, published)
    changed = sorted(name for name in published if (ROOT / name).read_bytes() != files[name])
    if changed:
        sys.exit(f"{sdist.name}: not as they are here: {', '.join(changed)}")


def check_wheel(wheel: Path) -> None:
    """Check what is in it, what the extensions call, its tags and its size."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        binaries = {name: archive.read(name) for name in names if name.endswith(".so")}
    becomes = {".py": ".py", ".pyi": ".pyi", ".typed": ".typed", ".pyx": ".so"}
    sources = [Path("greenwait", name) for name in _tracked(ROOT / "src" / "greenwait")]
    wanted = {
        str(path.with_suffix(becomes[path.suffix])) for path in sources if path.suffix in becomes
    }
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    wanted |= {info + name for name in _DIST_INFO}
    _expect(wheel.name, {_EXTENSION.sub(".so", name) for name in names}, wanted)
    _check_tags(wheel)
    for name, content in binaries.items():
        _check_symbols(name, content)
    size = wheel.stat().st_size
    if size > _MAX_BYTES:
        sys.exit(f"{wheel.name}: {size} bytes are too many")


def _check_tags(wheel: Path) -> None:
    platforms = {tag.platform for tag in parse_wheel_filename(wheel.name)[3]}
    for platform in platforms:
        found = re.fullmatch(r"manylinux_(\d+)_(\d+)_\w+", platform)
        if found and (int(found[1]), int(found[2])) > _MAX_GLIBC:
            sys.exit(f"{wheel.name}: needs a newer glibc than {_MAX_GLIBC}")
    if any(platform.startswith("linux_") for platform in platforms):
        sys.exit(f"{wheel.name}: not repaired, fits no other machine for certain")


def _check_symbols(name: str, content: bytes) -> None:
    if not content.startswith(b"\x7fELF"):
        return
    table = ELFFile(io.BytesIO(content)).get_section_by_name(".dynsym")
    assert isinstance(table, SymbolTableSection)
    imported = {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"}
    called = sorted(filter(_LOADER.match, imported))
    if called:
        sys.exit(f"{name} calls {', '.join(called)}")


def identifier(wheel: Path) -> str:
    """Return cibuildwheel's name of it, as ``cp310-manylinux_x86_64``."""
    tag = next(iter(parse_wheel_filename(wheel.name)[3]))
    found = _PLATFORM.fullmatch(tag.platform)
    if found is None:
        sys.exit(f"{wheel.name}: its platform is none that a release is for")
    return f"{tag.interpreter}-{found[1]}_{found[2]}"


def check_release(paths: Sequence[Path]) -> None:
    """Check that nothing is missing, and nothing there twice."""
    found = sorted(identifier(path) if path.suffix == ".whl" else "sdist" for path in paths)
    wanted = sorted(["sdist", *IDENTIFIERS.read_text().split()])
    if found != wanted:
        missing = sorted(set(wanted) - set(found))
        more = sorted(each for each in set(found) if found.count(each) > wanted.count(each))
        sys.exit(f"that is no whole release: missing {missing}, too many {more}")


def main() -> None:
    """Check each file that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--version", help="what they must be the release of")
    parser.add_argument("--release", action="store_true", help="it must be a whole one")
    arguments = parser.parse_args()
    for path in arguments.files:
        if not path.is_file() or not path.name.endswith((".whl", ".tar.gz")):
            sys.exit(f"{path} is no sdist and no wheel: `make wheel` builds both into dist/")
    if arguments.release:
        check_release(arguments.files)
    for path in arguments.files:
        version = path.name.removesuffix(".tar.gz").split("-")[1]
        if arguments.version not in (None, version):
            sys.exit(f"{path.name} is not of version {arguments.version}")
        (check_wheel if path.suffix == ".whl" else check_sdist)(path)


if __name__ == "__main__":
    main()
