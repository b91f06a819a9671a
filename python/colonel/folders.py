"""Where a session lies: a folder of this machine, or one in object storage, read through pyarrow."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import polars as pl
    import pyarrow.dataset as ds


class Folder(Protocol):
    """A session's folder. Its files have names relative to it, with `/`."""

    @property
    def name(self) -> str:
        """Its own name, which is the session's id."""

    def read(self, name: str) -> bytes:
        """A file's content; OSError where there is none."""

    def files(self, below: str = "") -> list[str]:
        """Names of all files below a folder, sorted; none where there is no such folder."""

    def dataset(self, names: list[str]) -> ds.Dataset:
        """These Parquet files as one dataset."""

    def scan(self, names: list[str]) -> pl.LazyFrame:
        """These Parquet files as polars reads them."""


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def files(self, below: str = "") -> list[str]:
        files = (file for file in (self.path / below).rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in files)

    def dataset(self, names: list[str]) -> ds.Dataset:
        import pyarrow.dataset as ds

        return ds.dataset([str(self.path / name) for name in names], format="parquet")

    def scan(self, names: list[str]) -> pl.LazyFrame:
        import polars as pl

        return pl.scan_parquet([self.path / name for name in names])


class RemoteFolder:
    """A folder in object storage, such as `s3://bucket/sessions/5e27fc0e`."""

    def __init__(self, url: str, filesystem: Any = None) -> None:
        """`filesystem` is one of pyarrow's, for what the URL and the environment do not say."""
        import pyarrow.fs as fs

        self.url = url.rstrip("/")
        if filesystem is None:
            self._files, path = fs.FileSystem.from_uri(self.url)
        else:
            self._files, path = filesystem, self.url.partition("://")[2]
        self._path: str = path.partition("?")[0].rstrip("/")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return posixpath.basename(self._path)

    def read(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self._path}/{name}") as stream:
            content: bytes = stream.read()
        return content

    def files(self, below: str = "") -> list[str]:
        import pyarrow.fs as fs

        selector = fs.FileSelector(posixpath.join(self._path, below).rstrip("/"), recursive=True, allow_not_found=True)
        found = (file.path for file in self._files.get_file_info(selector) if file.type == fs.FileType.File)
        return sorted(path.removeprefix(f"{self._path}/") for path in found)

    def dataset(self, names: list[str]) -> ds.Dataset:
        import pyarrow.dataset as ds

        return ds.dataset([f"{self._path}/{name}" for name in names], format="parquet", filesystem=self._files)

    def scan(self, names: list[str]) -> pl.LazyFrame:
        import polars as pl

        return pl.scan_pyarrow_dataset(self.dataset(names))


def is_url(place: str) -> bool:
    """True for `s3://…`, `gs://…` and the like."""
    return "://" in place
