"""A password in the URL of a store is refused before anything keeps or shows it, and the message does not repeat it."""

import pytest
from typer.testing import CliRunner

from subclass_kd.cli import app
from subclass_kd.errors import UserError
from subclass_kd.mirror import RemoteFolder
from subclass_kd.passwords import holds_password
from subclass_kd.study_file import make_study, parse_study

SECRET = [
    "sftp://user:geheim@host/images",
    "sftp:/user:geheim@host/images",
    "ftp://u@clinic:geheim@host",
    "s3://:geheim@b",
]
OPEN = [
    "s3://bucket/images",
    "s3://bucket/a:b@c",
    "sftp://user@host:22/images",
    "sftp://[::1]:22/images",
    "hdfs://node:8020",
    "abfs://container@account.dfs.core.windows.net/images",
    "github://owner:repository@main/images",
    "zip://*.png::s3://bucket/images.zip",
    "file:///C:/images",
    "C:/images",
    "/data/a:b@c",
]


@pytest.mark.parametrize("url", SECRET)
@pytest.mark.parametrize("key", ["root", "unlabelled", "table"])
def test_a_study_with_a_password_in_a_place_of_data_is_refused_and_told_where_it_belongs(key, url):
    for make in (lambda: parse_study(f"data: {{{key}: '{url}'}}"), lambda: make_study({}, [f"data.{key}={url}"])):
        with pytest.raises(UserError) as caught:
            make()
        assert caught.value.where.endswith(f'key "data.{key}"')
        assert "FSSPEC_SFTP_PASSWORD" in caught.value.remedy
        assert "geheim" not in str(caught.value)


def test_another_fault_of_the_same_section_does_not_show_the_password():
    for override in ("data={kind: foldr, root: 'sftp://user:geheim@host'}", "data=sftp://user:geheim@host"):
        with pytest.raises(UserError) as caught:
            make_study({}, [override])
        assert caught.value.where.startswith("--set data, ")
        assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", OPEN)
def test_other_places_of_data_are_taken_as_they_are(url):
    assert not holds_password(url)
    assert str(make_study({"data": {"root": url}}).data.root) == url


@pytest.mark.parametrize("command", [["run"], ["run", "--engine", "ray"], ["tune"]])
@pytest.mark.parametrize("url", SECRET)
def test_a_run_folder_with_a_password_is_refused_before_its_store_is_asked(command, url):
    ended = CliRunner().invoke(app, [*command, "study.yaml", "--out", url])
    assert isinstance(ended.exception, UserError)
    assert ended.exception.where == "--out"
    assert "FSSPEC_SFTP_PASSWORD" in ended.exception.remedy
    assert "geheim" not in str(ended.exception) + ended.output


def test_a_store_itself_takes_no_password():
    with pytest.raises(UserError, match="a URL with a password in it") as caught:
        RemoteFolder("memory://user:geheim@bucket/run")
    assert "geheim" not in str(caught.value)
