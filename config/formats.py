"""What a single value may look like, by the name that the schema's `format` gives it.

Each function takes the value as the document has it and returns what the model holds, or raises
`ValueError` with a sentence that says what is wrong and what to do, without repeating the value: it
may be a secret.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from config.addresses import (
    address,
    database_url,
    endpoint,
    host_name,
    host_pattern,
    ldap_url,
    network,
    origin,
    path_or_url,
    secure_url,
    store_url,
)
from config.colours import colour
from config.names import (
    acr,
    condition,
    cookie_name,
    field_name,
    field_value,
    identity_field_name,
    ldap_dn,
    method,
    name,
    namespace,
    query_parameter,
    request_line,
    sender,
)
from config.paths import literal_path, literal_target, path_pattern, prefix
from config.quantities import count, duration, flag, size, workers

FORMATS: Final[Mapping[str, Callable[[Any], object]]] = {
    "doorward-" + function.__name__.replace("_", "-"): function
    for function in (
        duration, size, count, workers, flag, host_name, host_pattern, address, network, origin,
        secure_url, path_or_url, endpoint, store_url, database_url, path_pattern, literal_path,
        prefix, literal_target, name, namespace, method, cookie_name, query_parameter,
        identity_field_name, field_name, field_value, request_line, condition, acr, colour,
        sender, ldap_url, ldap_dn,
    )
}  # fmt: skip
"""The schema's `format` names and what reads them."""
