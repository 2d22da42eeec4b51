"""The two ceremonies of WebAuthn: a passkey is made, and it is shown. What comes back is judged.

How this works. A browser gets *options* with a challenge, and gives back what the authenticator
signed; py_webauthn holds it to sections 7.1 and 7.2 of WebAuthn Level 3. What is ours: exactly one
origin counts, none in a frame of another one, the user handle must be the owner of the passkey, and
the counter is compared where it is kept (`auth.login.passkeys`), so that of two at once one wins.
Attestation is not asked for: who made an authenticator is nobody's business here, so what it says
of itself (`aaguid`, whether its key can be copied) is believed and proves nothing.

Importing the library takes a good part of a second and 6 MB: import this module where a ceremony
is, and not before.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    bytes_to_base64url,
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.options_to_json_dict import options_to_json_dict
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from auth.login.passkey import Passkey, RelyingParty, user_handle

TIMEOUT = 240.0
"""Seconds a browser gives a person; less than a challenge lives."""


class NotShown(Exception):
    """What came back shows no passkey; the text is for the log, and names nobody."""


class Assertion(msgspec.Struct, frozen=True):
    """What the owner of a passkey has just shown."""

    id: str
    sign_count: int
    backed_up: bool
    user_verified: bool


def creation_options(
    party: RelyingParty, challenge: bytes, *, subject: str, login: str, known: Iterable[Passkey]
) -> dict[str, Any]:
    """Return the options for another passkey of *subject*, as JSON (WebAuthn section 5.4).

    It can be found without a name being typed, and asks who is there: it can be the only factor.
    """
    options = generate_registration_options(
        rp_id=party.id,
        rp_name=party.name,
        user_id=user_handle(subject),
        user_name=login,
        challenge=challenge,
        timeout=int(TIMEOUT * 1000),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=_descriptors(known),
    )
    return options_to_json_dict(options)


def request_options(
    party: RelyingParty, challenge: bytes, *, allowed: Iterable[Passkey] = ()
) -> dict[str, Any]:
    """Return the options to show a passkey, as JSON (WebAuthn section 5.5).

    Without *allowed* any passkey that a browser finds for us, which tells nobody who has one, and
    must see to it who is there; with *allowed*, one of these, after another factor.
    """
    descriptors = _descriptors(allowed)
    required, preferred = (
        UserVerificationRequirement.REQUIRED,
        UserVerificationRequirement.PREFERRED,
    )
    options = generate_authentication_options(
        rp_id=party.id,
        challenge=challenge,
        timeout=int(TIMEOUT * 1000),
        allow_credentials=descriptors,
        user_verification=preferred if descriptors else required,
    )
    return options_to_json_dict(options)


def made_passkey(party: RelyingParty, challenge: bytes, response: str, *, now: float) -> Passkey:
    """Return the passkey that *response*, a browser's JSON, shows to be made for *challenge*.

    Whose it is and what it is called is left open.

    Raises:
        NotShown: it shows none.
    """
    try:
        credential = parse_registration_credential_json(response)
        _check_frame(credential.response.client_data_json)
        made = verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            require_user_verification=True,
        )
        transports = tuple(each.value for each in credential.response.transports or ())
    except Exception as error:  # whatever the bytes of a stranger make the library raise
        raise NotShown(f"{type(error).__name__}: {error}") from error
    return Passkey(
        id=bytes_to_base64url(made.credential_id),
        subject="",
        name="",
        public_key=made.credential_public_key,
        sign_count=made.sign_count,
        transports=transports,
        aaguid=made.aaguid,
        backup_eligible=made.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        backed_up=made.credential_backed_up,
        created_at=now,
    )


def presented_id(response: str) -> str:
    """Return which passkey *response* claims to show.

    Raises:
        NotShown: none.
    """
    try:
        return bytes_to_base64url(parse_authentication_credential_json(response).raw_id)
    except Exception as error:  # as above
        raise NotShown(f"{type(error).__name__}: {error}") from error


def shown_assertion(
    party: RelyingParty, challenge: bytes, response: str, passkey: Passkey, *, alone: bool
) -> Assertion:
    """Return what *response*, a browser's JSON, shows of *passkey* for *challenge*.

    *alone*: it is the only factor, so the authenticator must have verified the user, and must name
    them (WebAuthn section 7.2 step 6).

    Raises:
        NotShown: it does not show it.
    """
    try:
        credential = parse_authentication_credential_json(response)
        _check_frame(credential.response.client_data_json)
        shown = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=0,  # compared by the database, see above
            require_user_verification=alone,
        )
    except Exception as error:  # as above
        raise NotShown(f"{type(error).__name__}: {error}") from error
    handle = credential.response.user_handle
    # Passkeys of before it was a digest have the subject itself.
    owner = (user_handle(passkey.subject), passkey.subject.encode())
    if handle not in owner and (alone or handle):
        raise NotShown("the user handle is not that of its owner")
    if bytes_to_base64url(shown.credential_id) != passkey.id:
        raise NotShown("it is another passkey")
    return Assertion(
        id=passkey.id,
        sign_count=shown.new_sign_count,
        backed_up=shown.credential_backed_up,
        user_verified=shown.user_verified,
    )


def _check_frame(client_data: bytes) -> None:
    """Refuse what was signed in a frame of another origin: no page of ours is shown in one."""
    if parse_client_data_json(client_data).cross_origin:
        raise NotShown("it was signed in a frame of another origin")


def _descriptors(passkeys: Iterable[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    known = {each.value for each in AuthenticatorTransport}
    return [
        PublicKeyCredentialDescriptor(
            id=base64url_to_bytes(each.id),
            transports=[AuthenticatorTransport(name) for name in each.transports if name in known],
        )
        for each in passkeys
    ]
