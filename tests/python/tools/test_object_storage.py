"""A session in an S3-compatible store, moto's on loopback, opens as one on disk does: `make test-tools`."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import colonel
import polars as pl
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

MANIFEST = b'{"format": {"major": 1, "minor": 1}, "id": "5e27fc0e", "created_ns": 1}'
PROCESS = b"""{"pid": 7, "start_ticks": 1, "state": "ended", "windows": [
    {"number": 1, "name": "warm", "trigger": "region", "start_ns": 0, "end_ns": 9}]}"""
STARTS = {"000001": [3, 1], "000002": [2]}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    client.create_bucket(Bucket="runs")
    put = "sessions/5e27fc0e"
    client.put_object(Bucket="runs", Key=f"{put}/session.json", Body=MANIFEST)
    client.put_object(Bucket="runs", Key=f"{put}/processes/7-1.json", Body=PROCESS)
    client.put_object(Bucket="runs", Key=f"{put}/kernels/7-1/.000003.parquet", Body=b"PAR1")
    folder = tmp_path_factory.mktemp("tables")
    for segment, starts in STARTS.items():
        rows = {
            "pid": pa.array([7] * len(starts), pa.uint32()),
            "start_ns": starts,
            "window": pa.array([1] * len(starts), pa.uint32()),
        }
        pq.write_table(pa.table(rows), folder / segment)
        content = (folder / segment).read_bytes()
        client.put_object(Bucket="runs", Key=f"{put}/kernels/7-1/{segment}.parquet", Body=content)
    yield url
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def url(endpoint: str, session: str = "5e27fc0e") -> str:
    host = endpoint.partition("://")[2]
    return f"s3://runs/sessions/{session}?scheme=http&region=us-east-1&endpoint_override={host}"


def test_by_url(endpoint: str) -> None:
    session = colonel.open(url(endpoint))
    assert session.id == "5e27fc0e"
    assert session.kernels()["start_ns"].to_pylist() == [1, 2, 3]
    assert [window.name for window in session.windows] == ["warm"]
    assert len(session.kernels(window="warm")) == 3
    with pytest.raises(colonel.SessionReadError, match="it has: kernels"):
        session.table("memcpys")
    with pytest.raises(colonel.SessionReadError, match="is not on this machine"):
        _ = session.path


def test_by_a_filesystem_of_ones_own(endpoint: str) -> None:
    store = fs.S3FileSystem(endpoint_override=endpoint, region="us-east-1")
    assert len(colonel.open("s3://runs/sessions/5e27fc0e/", store).kernels()) == 3


def test_what_is_not_there(endpoint: str) -> None:
    with pytest.raises(colonel.SessionNotFoundError, match=r"is no session: it has no session\.json"):
        colonel.open(url(endpoint, "00000000"))
    with pytest.raises(colonel.SessionReadError, match="can't be opened"):
        colonel.open("nowhere://runs/5e27fc0e")


def test_polars_scans_it_without_colonel(endpoint: str) -> None:
    options = {
        "aws_endpoint_url": endpoint,
        "aws_region": "us-east-1",
        "aws_access_key_id": "testing",
        "aws_secret_access_key": "testing",
        "aws_allow_http": "true",
    }
    scan = pl.scan_parquet("s3://runs/sessions/5e27fc0e/kernels/7-1/0*.parquet", storage_options=options)
    assert scan.select(pl.col("start_ns").sum()).collect().item() == sum(sum(starts) for starts in STARTS.values())
