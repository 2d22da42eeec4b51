"""Look at the files that the route file names, as whoever uses them later will."""

import os
import ssl
import stat
from collections.abc import Iterable
from pathlib import Path

from config.model import PrivateFile
from config.named_files import NamedFile
from config.problem import Problem


def find_unusable(files: Iterable[NamedFile]) -> list[Problem]:
    """Return what is wrong with *files*: one that cannot be read, a key of another certificate.

    The content of a key set is not looked at: it may be replaced at any time, and then one that is
    no good is refused while the old one stays.
    """
    problems, unusable = [], set[str]()
    for file in files:
        why = _why_unreadable(file.path)
        if not why and file.certificate not in unusable:
            why = _why_unusable(file)
        if why:
            unusable.add(file.path)
            problems.append(Problem(*file.place, f"{file.key}: {file.path} {why}"))
    return problems


def _why_unreadable(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""


def _why_unusable(file: NamedFile) -> str:
    try:
        if file.kind == "certificate":
            # As a list of authorities: PEM is all that can be asked of it without its key.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file.path)
        elif file.kind == "authorities":
            ssl.create_default_context(cafile=file.path)
        elif file.kind == "key" and file.certificate:
            # An encrypted key must fail, not ask for a password on the terminal.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file.certificate, file.path, password=lambda: b"")
    except ssl.SSLError as error:
        if file.kind != "key":
            return "holds no certificate in PEM"
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"is the key of another certificate than {file.certificate}"
        return "holds no private key in PEM that is not encrypted"
    except OSError as error:  # gone, between the two looks
        return f"cannot be read: {error.strerror}"
    return ""


def find_exposed(files: Iterable[PrivateFile]) -> list[Problem]:
    """Return a warning for each of *files* that more people may read than need to."""
    warnings = []
    for file in files:
        who = may_also_read(file.path)
        if who:
            message = (
                f"warning: {who} may read {file.path}, which holds a secret ({file.named_by}): "
                "chmod 600, or see docs/operations.md, Secrets"
            )
            warnings.append(Problem(file.line, file.column, message))
    return sorted(set(warnings))


def may_also_read(path: str) -> str:
    """Return who beside its owner may read the file at *path*, in words; empty if nobody may.

    Its group counts where the owner is who reads it here. Anybody else reads it *by* the group, as
    a service does whose files are root's or are mounted with Kubernetes' `fsGroup`; and root, who
    needs no leave, may be checking the file for such a service.
    """
    try:
        status = Path(path).stat()
    except OSError:  # gone since it was read
        return ""
    if status.st_mode & stat.S_IROTH:
        return "everybody on this machine"
    if status.st_mode & stat.S_IRGRP and status.st_uid == os.geteuid() != 0:
        return "a group"
    return ""
