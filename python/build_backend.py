"""PEP 517 back end of the kgen package: a wheel is the folder kgen/ in a zip. Nothing is compiled or fetched."""
import base64
import hashlib
import io
import pathlib
import re
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def _project():
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    keys = dict(re.findall(r'^(name|version|description|requires-python) = "(.*)"$', text, re.M))
    metadata = (f"Metadata-Version: 2.1\nName: {keys['name']}\nVersion: {keys['version']}\n"
                f"Summary: {keys['description']}\nRequires-Python: {keys['requires-python']}\n")
    return keys["name"], keys["version"], metadata


def _entry_points():
    """entry_points.txt of the tables [project.entry-points.GROUP]."""
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    groups = re.findall(r"^\[project\.entry-points\.(\w+)\].*\n((?:\w+ = \".*\"\n?)*)", text, re.M)
    return "".join(f"[{group}]\n" + entries.replace('"', "") for group, entries in groups)


def _sources():
    return sorted(path for path in (HERE / "kgen").rglob("*") if path.suffix == ".py")


def _shipped():
    """{name in the wheel: bytes} of the database that ships with kgen, which the source tree has compressed."""
    own, archive = HERE / "kgen/shipped.db", HERE.parent / "db/shipped.db.tar.xz"
    if own.exists():  # an sdist's
        return {"kgen/shipped.db": own.read_bytes()}
    if not archive.exists():
        return {}
    with tarfile.open(archive) as packed:
        return {"kgen/shipped.db": packed.extractfile("shipped.db").read()}


def _wheel(folder, files):
    name, version, metadata = _project()
    info = f"{name}-{version}.dist-info"
    files = {**files, f"{info}/METADATA": metadata.encode(), f"{info}/entry_points.txt": _entry_points().encode(),
             f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: kgen\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
    return wheel


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {**{path.relative_to(HERE).as_posix(): path.read_bytes() for path in _sources()}, **_shipped()})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {"kgen.pth": f"{HERE}\n".encode()})


def build_sdist(sdist_directory, config_settings=None):
    name, version, metadata = _project()
    base = f"{name}-{version}"
    with tarfile.open(pathlib.Path(sdist_directory) / f"{base}.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path in [HERE / "pyproject.toml", HERE / "build_backend.py", *_sources()]:
            archive.add(path, f"{base}/{path.relative_to(HERE).as_posix()}")
        for path, data in _shipped().items():
            entry = tarfile.TarInfo(f"{base}/{path}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        info = pathlib.Path(sdist_directory) / "PKG-INFO"
        info.write_text(metadata, encoding="utf-8")
        archive.add(info, f"{base}/PKG-INFO")
        info.unlink()
    return f"{base}.tar.gz"
