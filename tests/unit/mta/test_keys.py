"""A sealed key opens with its envelope key and for its domain, and for nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError, KeySealError
from gateway.model.token import Purpose
from gateway.mta.keys import (
    derive_key,
    derive_ring,
    generate_rsa_key,
    load_or_create_master_key,
    public_key_txt,
    seal,
    unseal,
)

MASTER = bytes(range(32))


def test_a_key_is_rsa_2048_and_its_record_says_so() -> None:
    txt = public_key_txt(generate_rsa_key())
    assert txt.startswith("v=DKIM1; k=rsa; p=MIIBIjANBgkq")
    assert len(txt) == 18 + 392


@given(st.binary(max_size=200), st.text(max_size=20), st.data())
def test_sealed_opens_only_as_it_was_sealed(secret: bytes, domain: str, data: st.DataObject) -> None:
    sealed = seal(secret, MASTER, domain)
    assert unseal(sealed, MASTER, domain) == secret
    assert sealed != seal(secret, MASTER, domain)
    at = data.draw(st.integers(0, len(sealed) - 1))
    broken = bytearray(sealed)
    broken[at] ^= 1 << data.draw(st.integers(0, 7))
    for wrong in (
        lambda: unseal(bytes(broken), MASTER, domain),
        lambda: unseal(sealed[:at], MASTER, domain),
        lambda: unseal(sealed, MASTER, domain + "x"),
        lambda: unseal(sealed, bytes(32), domain),
    ):
        with pytest.raises(KeySealError):
            wrong()


def test_one_key_per_purpose() -> None:
    assert len({derive_key(MASTER, purpose) for purpose in ("verp", "click", "dkim-seal")}) == 3
    assert derive_key(MASTER, "verp") == derive_key(MASTER, "verp")


def test_every_purpose_and_key_id_has_a_secret_of_its_own() -> None:
    rings = [derive_ring(MASTER, purpose, {1: 0, 2: 100}) for purpose in Purpose]
    assert len({key.secret for ring in rings for key in ring.keys}) == 2 * len(Purpose)
    assert [(key.id, key.since_day) for key in rings[0].keys] == [(2, 100), (1, 0)]
    assert derive_ring(MASTER, Purpose.VERP).keys == rings[0].keys[1:]


def test_the_master_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "master.key"
    key = load_or_create_master_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_master_key(path) == key
    assert [p.name for p in path.parent.iterdir()] == ["master.key"]


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [(b"c2hvcnQ=", 0o600, "5 bytes"), (b"!!", 0o600, "base64"), (b"A" * 43 + b"=", 0o644, "read by others")],
)
def test_a_wrong_master_key_stops_the_start(tmp_path: Path, content: bytes, mode: int, says: str) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=says):
        load_or_create_master_key(path)
