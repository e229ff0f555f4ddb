"""Claims of clients on what they sent, each signed with the client's own key: Ed25519, by `cryptography`.

A claim has the client, the round, the digests of the model that it received and of what it sent, and its examples. The
server takes no update whose claim does not go with it, and keeps the signatures in the facts of the rounds. They say
who sent what, as long as a client's key is its own: whoever holds all keys can make all claims. Source: AF2
(arXiv:2202.12443), the claims of each party.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.core.files import PRIVATE, canonical, write_text
from expunge.training.updates import ClientUpdate, digest_of

WHERE = "trainer.federation.local.sign"
HEAD = "expunge: claim of a federation's client, version 1\n"


def claim_of(client: str, round_: int, received: str, update: str, examples: int) -> bytes:
    """The text that a client signs. received, update: digests of the model that it got, and of what it sent."""
    told = {"client": client, "round": round_, "received": received, "update": update, "examples": examples}
    return (HEAD + canonical(told)).encode()


@dataclass(frozen=True)
class Keys:
    """The clients' private keys, each in a file of a folder, named after the client: `7.pem`, PKCS8 without a password.

    In one process all lie in one folder; between machines each client has its own.
    """

    folder: Path

    @classmethod
    def of(cls, folder: str | None, clients: Sequence[str]) -> Keys | None:
        """The keys of these clients; None without a folder. Raises BadInput."""
        if not folder:
            return None
        keys = cls(Path(folder))
        for name in clients:
            keys.private(name)
        return keys

    def private(self, name: str) -> Any:
        """A client's private key. Raises BadInput."""
        return private_key(file_of(self.folder, name, "pem"))

    def sign(self, number: int, received: str, update: ClientUpdate) -> ClientUpdate:
        """The update with its client's claim."""
        return sign(self.private(update.client), number, received, update)


def sign(key: Any, number: int, received: str, update: ClientUpdate) -> ClientUpdate:
    """The update with a claim by this private key. received: digest of the model that its round began with."""
    claim = claim_of(update.client, number, received, digest_of(update.weights), update.examples)
    return replace(update, signature=key.sign(claim).hex(), key=key.public_key().public_bytes_raw().hex())


def private_key(path: Path) -> Any:
    """The Ed25519 key of a PEM file. Raises BadInput."""
    private, _ = _ed25519()
    found = _load(path, "load_pem_private_key", None)
    if not isinstance(found, private):
        raise BadInput.of(WHERE, str(path), "is not an Ed25519 key", f"openssl genpkey -algorithm ed25519 -out {path}")
    return found


def public_key(path: Path) -> str:
    """The Ed25519 public key of a PEM file, in hexadecimal. Raises BadInput."""
    _, public = _ed25519()
    found = _load(path, "load_pem_public_key")
    if not isinstance(found, public):
        raise BadInput.of("parties", str(path), "is not an Ed25519 key", "give the file that the client gave you")
    return str(found.public_bytes_raw().hex())


def _load(path: Path, loader: str, *given: Any) -> Any:
    try:
        return getattr(_cryptography("hazmat.primitives.serialization"), loader)(path.read_bytes(), *given)
    except (OSError, ValueError, TypeError) as error:
        fix = f"openssl genpkey -algorithm ed25519 -out {path}"
        raise BadInput.of(WHERE, str(path), f"cannot be read ({type(error).__name__})", fix) from None


def file_of(folder: Path, name: str, ending: str) -> Path:
    """The file of a client's key. Raises BadInput for a name that is a path."""
    if not name or Path(name).name != name:
        raise BadInput.of(WHERE, name, "is a client that no file can be named after", "give it a plain name")
    return folder / f"{name}.{ending}"


def make_keys(folder: Path, clients: Sequence[str]) -> None:
    """Draw a key for each client: `7.pem`, which is the client's alone, and `7.pub`, for everybody."""
    private, _ = _ed25519()
    as_bytes = _cryptography("hazmat.primitives.serialization")
    folder.mkdir(parents=True, exist_ok=True)
    for name in clients:
        key, pem = private.generate(), as_bytes.Encoding.PEM
        secret = key.private_bytes(pem, as_bytes.PrivateFormat.PKCS8, as_bytes.NoEncryption())
        shown = key.public_key().public_bytes(pem, as_bytes.PublicFormat.SubjectPublicKeyInfo)
        write_text(file_of(folder, name, "pem"), secret.decode(), PRIVATE)
        write_text(file_of(folder, name, "pub"), shown.decode())


def fault_of_claim(signature: str, key: str, claim: bytes) -> str:
    """Why a signature is not that of a claim by this key; "" where it is."""
    _, public = _ed25519()
    invalid = _cryptography("exceptions").InvalidSignature
    try:
        public.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), claim)
    except (invalid, ValueError):
        return "its signature does not go with what it sent"
    return ""


def faults_of_claims(
    number: int, received: str, updates: Sequence[ClientUpdate], known: Mapping[str, str]
) -> dict[str, str]:
    """Client -> why its claim does not hold, of those whose does not. known: client -> its public key."""
    found: dict[str, str] = {}
    for one in updates:
        claim = claim_of(one.client, number, received, digest_of(one.weights), one.examples)
        why = fault_of_claim(one.signature, one.key, claim) if one.signature else "sent no signed claim"
        if one.signature and one.key != known.get(one.client, one.key):
            why = "signed with another key than its own"
        found |= {one.client: why} if why else {}
    return found


def claims_of(updates: Sequence[ClientUpdate]) -> dict[str, dict[str, Any]]:
    """Client -> its examples, key and signature, for the facts of a round."""
    return {one.client: {"examples": one.examples, "key": one.key, "signature": one.signature} for one in updates}


def broken_claims(fact: Mapping[str, Any], keys: dict[str, str], signers: Collection[str] = ()) -> list[str]:
    """The faults of a round's claims, in sentences.

    keys: client -> its public key; further ones are added. signers: clients that must have signed, also where nobody
    did.
    """
    found, claims = [], fact.get("claims") or {}
    for name in fact.get("updates") or {}:
        told = claims.get(name)
        if told is None:
            if claims or name in signers:
                found.append(f"round {fact['round']}: client {name} signed nothing")
            continue
        claim = claim_of(name, fact["round"], fact["received"], fact["updates"][name], told["examples"])
        if told["key"] != keys.setdefault(name, told["key"]):
            found.append(f"round {fact['round']}: client {name}'s claim is signed by another key")
        elif why := fault_of_claim(told["signature"], told["key"], claim):
            found.append(f"round {fact['round']}: client {name}: {why}")
    return found


def _ed25519() -> tuple[Any, Any]:
    module = _cryptography("hazmat.primitives.asymmetric.ed25519")
    return module.Ed25519PrivateKey, module.Ed25519PublicKey


def _cryptography(module: str) -> Any:
    require(WHERE, "", "cryptography", "crypto")
    return importlib.import_module(f"cryptography.{module}")
