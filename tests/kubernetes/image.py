"""Images without a registry: this machine's Python, configstore and what it depends on, as a tar archive.

Stands in for the image of the Dockerfile where no base image can be had. `podman import` reads it.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
SKIP = {"test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages", "lib2to3", "turtledemo"}
SCRIPTS = {"configstore": "configstore.cli", "configstore-sidecar": "sidecar.__main__"}


def write_image(path: Path) -> None:
    """Write the archive."""
    with tarfile.open(path, "w") as archive:
        archive.add(_python(), str(_python()))
        archive.add(_python(), "/usr/bin/python3")
        _add_tree(archive, Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("stdlib")))
        site = Path(sys.base_prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages")
        for name in ("configstore", "sidecar"):
            _add_tree(archive, ROOT / name, site / name)
        for source, relative in _dependencies():
            archive.add(source, str(site / relative))
        for library in _libraries():
            archive.add(os.path.realpath(library), library)
        for name, module in SCRIPTS.items():
            text = f"#!/usr/bin/python3\nimport sys\nsys.path.append({str(site)!r})\n"
            _add_text(archive, f"/usr/bin/{name}", f"{text}from {module} import main\nsys.exit(main())\n", 0o755)
        _add_text(archive, "/etc/passwd", "root:x:0:0::/:/bin/false\nmailu:x:1000:1000::/:/bin/false\n", 0o644)


def write_pause(path: Path) -> None:
    """Write the archive of the image that holds a pod's namespaces open."""
    with tarfile.open(path, "w") as archive:
        archive.add(os.path.realpath("/usr/bin/catatonit"), "/usr/bin/catatonit")


def _python() -> Path:
    return Path(sys.executable).resolve()


def _add_tree(archive: tarfile.TarFile, source: Path, target: Path) -> None:
    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(entry.name).name in SKIP else entry

    archive.add(source, str(target), filter=chosen)


def _add_text(archive: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), mode
    archive.addfile(entry, BytesIO(text.encode()))


def _dependencies() -> list[tuple[str, str]]:
    """Return the files of all distributions that configstore needs, and where they go in site-packages."""
    waiting, seen, files = ["mailu-configstore"], set(), []
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        for requirement in distribution.requires or ():
            name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
            if ";" not in requirement and name not in seen:
                seen.add(name)
                waiting.append(name)
        if distribution.name != "mailu-configstore":
            files += [
                (str(distribution.locate_file(file)), str(file))
                for file in distribution.files or ()
                if ".." not in file.parts and distribution.locate_file(file).exists()
            ]
    return files


def _libraries() -> set[str]:
    """Return the shared libraries of Python, of its extensions and of the dependencies' extensions."""
    extensions = [str(path) for path in Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so")]
    extensions += [source for source, _ in _dependencies() if source.endswith(".so")]
    shown = subprocess.run(["ldd", str(_python()), *extensions], capture_output=True, text=True, check=True)
    return set(re.findall(r"(/\S+\.so\S*) \(0x", shown.stdout))
