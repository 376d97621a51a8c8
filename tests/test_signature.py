from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_hal.bundle import load_bundle
from edge_hal.bundle.signature import SIGNATURE, new_signer, sign_bundle, signers
from edge_hal.errors import EdgeHalError
from tests.helpers.bundles import known_bundle

Change = Callable[[Path], object]


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """`bundle`, signed by `maker`; `trusted` lists the maker, `strangers` somebody else."""
    known_bundle(tmp_path / "bundle")
    public, secret = new_signer(tmp_path / "keys", "maker")
    other, _ = new_signer(tmp_path / "others", "other")
    for folder, key in (("trusted", public), ("strangers", other)):
        (tmp_path / folder).mkdir()
        shutil.copy(key, tmp_path / folder)
    sign_bundle(tmp_path / "bundle", secret)
    return tmp_path


def test_a_signed_bundle_is_opened_and_its_signer_named(signed: Path) -> None:
    bundle = load_bundle(signed / "bundle", trusted=signed / "trusted")
    assert bundle.signer == "maker" and bundle.fingerprint == load_bundle(signed / "bundle").fingerprint


def test_what_is_opened_cannot_be_changed_afterwards(signed: Path) -> None:
    """Whoever can write the folder of the bundle gains nothing between the check and the use."""
    bundle = load_bundle(signed / "bundle", trusted=signed / "trusted")
    for file in (signed / "bundle").iterdir():
        file.write_bytes(b"")
    assert bundle.graph(0).stat().st_size > 0 and bundle.path.parent.stat().st_mode & 0o077 == 0
    private = bundle.path.parent
    del bundle
    assert not private.exists()


def test_the_public_key_of_a_pair_signs_nothing_and_the_secret_one_is_named(signed: Path) -> None:
    public = signed / "keys" / "maker.signer"
    assert public.stat().st_mode & 0o077
    with pytest.raises(EdgeHalError, match="holds no secret signing key: it is the public key") as error:
        sign_bundle(signed / "bundle", public)
    assert str(signed / "keys" / "maker.signer_secret") in error.value.todo and "chmod" not in error.value.todo


CHANGES: dict[str, tuple[Change, str]] = {
    "an edited threshold": (lambda b: (b / "decoder.json").write_text('{"confirm_s": 9.0}'), "decoder.json"),
    "a procedure that was added": (lambda b: (b / "procedure.json").write_text("{}"), "procedure.json is not signed"),
    "a graph of the same size": (
        lambda b: (b / "level0.c1.fp32.onnx").write_bytes((b / "level0.c1.fp32.onnx").read_bytes()[::-1]),
        "was changed after it was signed",
    ),
    "a file that is missing": (lambda b: (b / "decoder.json").unlink(), "decoder.json is missing"),
    "a file that grew": (lambda b: os.truncate(b / "level0.c1.fp32.onnx", 1 << 40), "more than"),
    "a folder": (lambda b: (b / "more").mkdir(), "no regular file"),
    "a link": (lambda b: (b / "more").symlink_to("/etc/hostname"), "no regular file"),
    "no signature": (lambda b: (b / SIGNATURE).unlink(), "it has no signature.json"),
    "a signature that is a link": (
        lambda b: ((b / SIGNATURE).rename(b.parent / "s"), (b / SIGNATURE).symlink_to(b.parent / "s")),
        "is a link",
    ),
    "a path in the signature": (
        lambda b: (b / SIGNATURE).write_text((b / SIGNATURE).read_text().replace("decoder.json", "../decoder.json")),
        "malformed",
    ),
    "another size": (
        lambda b: (b / SIGNATURE).write_text((b / SIGNATURE).read_text().replace('"bytes": ', '"bytes": 1')),
        "none of the 1 keys",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_after_the_signature_is_refused(signed: Path, name: str) -> None:
    change, why = CHANGES[name]
    change(signed / "bundle")
    with pytest.raises(EdgeHalError, match="not trusted") as refused:
        load_bundle(signed / "bundle", trusted=signed / "trusted")
    assert why in refused.value.why


def test_an_edited_bundle_is_trusted_once_it_is_signed_again(signed: Path) -> None:
    (signed / "bundle" / "decoder.json").write_text('{"confirm_s": 9.0}')
    sign_bundle(signed / "bundle", signed / "keys" / "maker.signer_secret")
    assert load_bundle(signed / "bundle", trusted=signed / "trusted").decoder.confirm_s == 9.0


def test_only_listed_keys_are_trusted(signed: Path) -> None:
    with pytest.raises(EdgeHalError, match="none of the 1 keys"):
        load_bundle(signed / "bundle", trusted=signed / "strangers")
    for folder in ("empty", "missing"):
        (signed / "empty").mkdir(exist_ok=True)
        with pytest.raises(EdgeHalError, match="no folder with") as refused:
            load_bundle(signed / "bundle", trusted=signed / folder)
        assert refused.value.exit_code == 2
    (signed / "trusted").chmod(0o777)
    with pytest.raises(EdgeHalError, match="every user of the machine"):
        signers(signed / "trusted")


def test_the_keys_are_those_of_openssl(signed: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "pkey", "-pubin", "-noout", "-text", "-in", str(signed / "trusted" / "maker.signer")]
    assert "ED25519" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_signature_needs_a_secret_key_that_is_secret(signed: Path) -> None:
    secret = signed / "keys" / "maker.signer_secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.chmod(0o640)
    with pytest.raises(EdgeHalError, match="others can read it"):
        sign_bundle(signed / "bundle", secret)


def test_the_signature_is_no_part_of_what_it_signs(signed: Path) -> None:
    body = json.loads((signed / "bundle" / SIGNATURE).read_text())
    assert set(body["files"]) == {file.name for file in (signed / "bundle").iterdir()} - {SIGNATURE}
