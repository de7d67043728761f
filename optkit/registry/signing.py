"""Signatures of versions by OpenSSF model-signing: made with a private key, accepted where its public key is trusted.

What is signed is a version's folder as a whole: the SHA-256 of each file, its configuration and provenance included.
"""

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import read_json

SIGNATURE = "model.sig"
"""A Sigstore bundle, in the version's folder."""
PASSPHRASE = "OPTKIT_SIGN_PASSPHRASE"
"""Environment variable with the passphrase of a private key; taken out of the environment, which servers inherit."""
_SHOWN = 16
_KEY_ID = re.compile("[0-9a-f]{64}")
_LARGEST = 2**22
"""Bytes of a signature, which has a line for each file."""
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_FIX = "Expected a PEM file of an elliptic curve (P-256, P-384 or P-521): docs/publishing.md, Signatures"


class _Key(TypedDict):
    hint: str


class _Material(TypedDict):
    publicKey: _Key


class _Bundle(TypedDict):
    verificationMaterial: _Material


class Signer:
    """A private key, which is read once and stays in this process.

    Args:
        path: PEM file that its owner alone can read. Its passphrase, if it has one, is in the environment.

    Raises:
        InputError: there is no such file, others can read it, or it is no such key.
        MachineError: the package for signatures is missing.
    """

    def __init__(self, path: Path) -> None:
        self._api = _model_signing(f"--sign {path}")
        secret = os.environ.pop(PASSPHRASE, None)
        password = None if secret is None else secret.encode()
        self.key_id = _key_id(_private_key(path, password).public_key())
        self._config: Any = self._api.signing.Config().use_elliptic_key_signer(private_key=path, password=password)

    def sign(self, version: Path) -> None:
        """Write the signature of a version into its folder."""
        self._config.set_hashing_config(_everything(self._api)).sign(version, version / SIGNATURE)


class Trust:
    """Public keys whose signatures are accepted.

    Args:
        paths: PEM files.

    Raises:
        InputError: there is no such file, or it is no such key.
        MachineError: the package for signatures is missing.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._api = _model_signing(f"--trust {paths[0]}")
        self._verifiers = {_key_id(_public_key(path)): self._verifier(path) for path in paths}

    def complaints(self, version: Path) -> list[str]:
        """What is wrong with the signature of a version; empty where a trusted key signed what is there."""
        path = version / SIGNATURE
        if not path.is_file():
            return [f"{version}: unsigned; publish it again with --sign KEY"]
        key_id = signed_by(version)
        if key_id not in self._verifiers:
            trusted = ", ".join(each[:_SHOWN] for each in self._verifiers)
            return [f"{path}: signed by {(key_id or 'nobody')[:_SHOWN]}, which is not trusted; trusted: {trusted}"]
        try:
            self._verifiers[key_id].set_hashing_config(_everything(self._api)).verify(version, path)
        except Exception:  # whatever it is, nothing is shown to be signed
            return [f"{path}: not the signature of what is there: the version was changed, or its signature"]
        return []

    def _verifier(self, path: Path) -> Any:
        return self._api.verifying.Config().use_elliptic_key_verifier(public_key=path)


def signed_by(version: Path) -> str | None:
    """Id of the key that a version's signature names, which is a claim until a `Trust` has looked at it.

    It is the SHA-256 of the public key's PEM file.
    """
    try:
        bundle = read_json(version / SIGNATURE, _Bundle, largest=_LARGEST)
    except InputError:
        return None
    key_id: str = bundle["verificationMaterial"]["publicKey"]["hint"]
    return key_id if _KEY_ID.fullmatch(key_id) else None


def shown(version: Path) -> str:
    """A version's signature in a word or three: `unsigned`, or `signed by …`."""
    if not (version / SIGNATURE).is_file():
        return "unsigned"
    return f"signed by {(signed_by(version) or 'nobody')[:_SHOWN]}"


def _model_signing(option: str) -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise MachineError(
            f"{option}: needs the package model-signing ({error}). Install it: pip install 'optkit[signing]'"
        ) from error
    return model_signing


def _everything(api: Any) -> Any:
    """Every file of a folder but the signature, git's too, which model-signing leaves out by itself; no links."""
    return api.hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _private_key(path: Path, password: bytes | None) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _content(path, "--sign")
    if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        raise InputError(f"--sign {path}: mode {mode:04o} lets others than its owner at the private key: chmod 600 {path}")
    try:
        key = load_pem_private_key(content, password)
    except TypeError as error:  # with or without a passphrase, where the other was expected
        raise InputError(f"--sign {path}: {error}. The passphrase is taken from {PASSPHRASE}") from error
    except ValueError as error:
        raise InputError(f"--sign {path}: cannot be read as a private key ({error}). {_FIX}") from error
    _require_curve(key, f"--sign {path}")
    return key


def _public_key(path: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_content(path, "--trust"))
    except ValueError as error:
        raise InputError(f"--trust {path}: cannot be read as a public key ({error}). {_FIX}") from error
    _require_curve(key, f"--trust {path}")
    return key


def _content(path: Path, option: str) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"{option} {path}: no such file. {_FIX}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be read: {error.strerror}") from error


def _require_curve(key: Any, what: str) -> None:
    curve = getattr(getattr(key, "curve", None), "name", f"no curve ({type(key).__name__})")
    if curve not in _CURVES:
        raise InputError(f"{what}: a key of {curve}. {_FIX}")


def _key_id(public_key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
