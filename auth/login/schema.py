"""The tables of the accounts, version by version; `auth.io.database` says in which words.

A version that has been released is never changed: databases that have it are given the next ones.
"""

from typing import Final

_ACCOUNTS = """
CREATE TABLE accounts (
    subject TEXT PRIMARY KEY,
    login TEXT NOT NULL,
    canonical_login TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    roles TEXT NOT NULL,
    groups TEXT NOT NULL,
    email TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    changed_at REAL NOT NULL
) STRICT
"""

_ONE_TIME_TOKENS = """
CREATE TABLE one_time_tokens (
    digest TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    subject TEXT NOT NULL,
    revision INTEGER NOT NULL,
    email TEXT NOT NULL,
    name TEXT NOT NULL,
    expires_at REAL NOT NULL
) STRICT
"""
_TOKENS_OF_A_SUBJECT = "CREATE INDEX one_time_tokens_subject ON one_time_tokens (subject)"

_TOTP_SECRETS = """
CREATE TABLE totp_secrets (
    subject TEXT PRIMARY KEY,
    sealed BLOB NOT NULL,
    last_step INTEGER NOT NULL,
    created_at REAL NOT NULL
) STRICT
"""
_RECOVERY_CODES = """
CREATE TABLE recovery_codes (
    digest TEXT PRIMARY KEY,
    subject TEXT NOT NULL
) STRICT
"""
_REQUIRED_FACTORS = """
CREATE TABLE required_factors (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT
"""
_FACTORS = (
    _TOTP_SECRETS,
    _RECOVERY_CODES,
    "CREATE INDEX recovery_codes_subject ON recovery_codes (subject)",
    _REQUIRED_FACTORS,
)

_PASSKEYS = """
CREATE TABLE passkeys (
    id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    public_key BLOB NOT NULL,
    sign_count INTEGER NOT NULL,
    transports TEXT NOT NULL,
    aaguid TEXT NOT NULL,
    backup_eligible INTEGER NOT NULL,
    backed_up INTEGER NOT NULL,
    created_at REAL NOT NULL,
    used_at REAL NOT NULL
) STRICT
"""
_PASSKEYS_OF_A_SUBJECT = "CREATE INDEX passkeys_subject ON passkeys (subject)"
_PEOPLE_ELSEWHERE = """
CREATE TABLE people_elsewhere (
    subject TEXT PRIMARY KEY,
    login TEXT NOT NULL,
    canonical_login TEXT NOT NULL,
    seen_at REAL NOT NULL
) STRICT
"""
_ELSEWHERE = (
    _PEOPLE_ELSEWHERE,
    "CREATE INDEX people_elsewhere_login ON people_elsewhere (canonical_login)",
)

VERSIONS: Final = (
    (_ACCOUNTS,),
    (_ONE_TIME_TOKENS, _TOKENS_OF_A_SUBJECT),
    _FACTORS,
    (_PASSKEYS, _PASSKEYS_OF_A_SUBJECT),
    _ELSEWHERE,
)
"""What leads from nothing to version 1, from there to version 2, and so on."""
